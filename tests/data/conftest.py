"""Small image sets on disk, as their formats' own writers make them."""

import io
import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from ddpm.data.pixels import ImageData, MemoryPixels


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def pixels() -> np.ndarray:
    """uint8 [12, 8, 8, 3]"""
    return np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def class_folder(tmp_path, pixels):
    """12 PNGs in the folders a, b, c: image i is in folder i % 3."""
    for i, image in enumerate(pixels):
        folder = tmp_path / "classes" / "abc"[i % 3]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i:02d}.png").write_bytes(png(image))
    return tmp_path / "classes"


@pytest.fixture
def edm_zip(tmp_path, pixels):
    path = tmp_path / "edm.zip"
    names = [f"00000/img{i:08d}.png" for i in range(len(pixels))]
    with zipfile.ZipFile(path, "w") as archive:
        for name, image in zip(names, pixels, strict=True):
            archive.writestr(name, png(image))
        archive.writestr("dataset.json", json.dumps({"labels": [[n, i % 4] for i, n in enumerate(names)]}))
    return path


@pytest.fixture
def parquet_files(tmp_path, pixels):
    """Two files of 6 rows in groups of 4 and 2, with the metadata of the Hugging Face library."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    features = {"img": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    for part in (0, 1):
        rows = range(6 * part, 6 * part + 6)
        table = pa.table(
            {
                "img": [{"bytes": png(pixels[i]), "path": f"{i}.png"} for i in rows],
                "label": pa.array([i % 2 if i != 5 else None for i in rows], pa.int64()),
            }
        ).replace_schema_metadata(metadata)
        pq.write_table(table, tmp_path / f"train-{part}.parquet", row_group_size=4)
    return str(tmp_path / "train-*.parquet")


@pytest.fixture
def numbered():
    """A function of n: n images of 1 x 1 whose one pixel is the image's number, labels 10 times that."""

    def make(num: int) -> ImageData:
        images = torch.arange(num, dtype=torch.uint8).view(-1, 1, 1, 1)
        return ImageData(MemoryPixels(images), torch.arange(num) * 10, torch.arange(num))

    return make
