"""Stores with one picture file per image, as images/NUMBER.png, and their classes or captions in a table there.

dataset.json, of classes, is that of EDM's dataset_tool.py (Karras et al. 2022); metadata.jsonl, of captions, that of
Hugging Face's ImageFolder. data=folder, data=zip and evaluate.py read them.
"""

import io
import json
import math
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import ClassVar, final

import numpy as np
from PIL import Image

from ddpm.base.atomic import remove_partial_files, write_atomically
from ddpm.data.sources.layout import CAPTION_TABLE, EDM_TABLE
from ddpm.data.sources.tables import FILE_NAME
from ddpm.generation.stores.base import ImageStore, is_picture, save_picture


class PictureFolder(ImageStore):
    """File names depend only on the sample number (six or more digits), so samples can be added."""

    continues, grows = True, True
    suffix: ClassVar[str]
    encoding: ClassVar[str]  # Pillow's name of it

    @property
    def images(self) -> Path:
        return self.folder / "images"

    def path(self, number: int) -> Path:
        return self.images / f"{number:06d}.{self.suffix}"

    def stored(self) -> Iterator[tuple[int, bytes]]:
        names = set(os.listdir(self.images)) if self.images.exists() else set()
        done_mask = (number for number in range(self.num_samples) if self.path(number).name in names)
        return ((number, self.path(number).read_bytes()) for number in done_mask)

    def is_image(self, data: bytes) -> bool:
        return is_picture(io.BytesIO(data)) and np.asarray(Image.open(io.BytesIO(data))).size == math.prod(self.shape)

    def begin(self) -> None:
        self.images.mkdir(exist_ok=True)
        remove_partial_files(self.images)
        self.adopt()

    def adopt(self) -> None:
        super().adopt()
        if self.labels is not None:
            numbers = enumerate(self.labels.tolist())
            labels = [[self.path(number).name, label] for number, label in numbers if label >= 0]
            self.keep(EDM_TABLE, json.dumps({"labels": labels}))
        if self.captions is not None:
            rows = ({FILE_NAME: self.path(number).name, "text": text} for number, text in enumerate(self.captions))
            self.keep(CAPTION_TABLE, "".join(f"{json.dumps(row)}\n" for row in rows))

    def keep(self, name: str, table: str) -> None:
        path = self.images / name
        if not path.exists() or path.read_bytes() != table.encode():
            write_atomically(path, table.encode())

    def write(self, number: int, image: np.ndarray) -> None:
        save_picture(self.path(number), image, self.encoding, partial(self.seal, number))

    def finish(self) -> np.ndarray:
        remove_partial_files(self.images)
        first = [np.asarray(Image.open(self.path(number))) for number in range(self.num_first)]
        return np.stack(first).reshape(self.num_first, *self.shape)


@final
class PngFolder(PictureFolder):
    suffix, encoding = "png", "PNG"


@final
class JpegFolder(PictureFolder):
    """Of quality 75, Pillow's default, as Xiao et al. 2022 wrote the samples of which they measured FID."""

    suffix, encoding = "jpg", "JPEG"
