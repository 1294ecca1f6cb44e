"""Images per second of the training loader, 32 x 32 x 3, batch size 128: from memory, and decoding PNG and JPEG.

    python benchmarks/loader.py

Best of three epochs, after one epoch that starts the workers. The benchmark creates small files, which stay in the page
cache. It uses one torch thread, because a training uses the others.
"""

import tempfile
import time
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.base import ArrayImages, Source
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.zip import Zip

NUM_FILES = 4096
NUM_IN_MEMORY = 32768


class Made:
    """Images that are arrays already."""

    def __init__(self, pixels: np.ndarray):
        self.pixels = pixels

    def open(self) -> ArrayImages:
        return ArrayImages("made", self.pixels, torch.zeros(len(self.pixels), dtype=torch.int64), ())


def smooth_images(num: int) -> np.ndarray:
    """uint8 `[num, 32, 32, 3]`, random but about as compressible as photographs."""
    coarse = np.random.default_rng(0).integers(0, 256, (num, 8, 8, 3), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((32, 32), Image.Resampling.BICUBIC)) for image in coarse])


def encoded(pixels: np.ndarray, kind: str) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


def images_per_second(source: Source, num_workers: int = 0, **options: Any) -> float:
    data = ImageDataModule(source, "benchmark", 3, 32, batch_size=128, num_workers=num_workers, **options)
    data.setup("fit")
    loader = data.train_dataloader()
    rates = []
    for _ in range(4):
        start = time.perf_counter()
        num = sum(len(batch["index"]) for batch in loader)
        rates.append(num / (time.perf_counter() - start))
    return max(rates[1:])


def measure() -> list[dict[str, Any]]:
    """One row a case: source, workers, images_per_second."""
    rows = []

    def add(name: str, source: Source, num_workers: int = 0, **options: Any) -> None:
        rate = images_per_second(source, num_workers, **options)
        rows.append({"source": name, "workers": num_workers, "images_per_second": round(rate)})

    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        pixels = smooth_images(NUM_FILES)
        jpegs = Path(folder) / "jpeg"
        jpegs.mkdir()
        for i, image in enumerate(pixels):
            (jpegs / f"{i:05d}.jpg").write_bytes(encoded(image, "JPEG"))
        pngs = Path(folder) / "png.zip"
        with zipfile.ZipFile(pngs, "w", zipfile.ZIP_STORED) as archive:
            for i, image in enumerate(pixels):
                archive.writestr(f"{i:05d}.png", encoded(image, "PNG"))

        in_memory = Made(pixels.repeat(NUM_IN_MEMORY // NUM_FILES, axis=0))
        add("uint8 in memory", in_memory)
        add("uint8 in memory, flips", in_memory, flip=True)
        for num_workers in (0, 2):
            add("JPEG files", Folder(str(jpegs)), num_workers, memory_limit_mb=0, verify=False)
        for num_workers in (0, 2):
            add("PNG in a zip", Zip(str(pngs)), num_workers, memory_limit_mb=0, verify=False)
    torch.set_num_threads(num_threads)
    return rows


if __name__ == "__main__":
    for row in measure():
        print(f"{row['source']:24} {row['workers']} workers {row['images_per_second']:>9,} images/s")
