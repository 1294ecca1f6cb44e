"""Data from strangers: nothing is unpacked to the disk, waited for or inflated, and each error names its file."""

import io
import json
import os
import pickle
import re
import struct
import subprocess
import warnings
import zipfile
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ddpm.data.datamodule import ImageDataModule
from ddpm.data.images import Preparation, UnusableImage
from ddpm.data.open_image import open_image
from ddpm.data.sources.cifar10 import Cifar10
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.webdataset import WebDataset
from ddpm.data.sources.zip import Zip


def png():
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), 7, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width, height):
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    pixels = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + pixels + chunk(b"IEND", b"")


def error_of(source, **settings):
    """The one error of a data set whose images are all looked at."""
    settings = {"channels": 3, "size": 8, "batch_size": 1} | settings
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ValueError) as caught:
            ImageDataModule(source, name="evil", **settings).setup("fit")
    return str(caught.value)


# Images

HUGE = {
    "png": png_of(60000, 60000),
    "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\x00\x00\x00,\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0;",
    "webp": b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0" * 4 + b"\xff\x3f\0" * 2,
    "bmp": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 60000, 60000, 1, 24, 0, 0, 0, 0, 0, 0),
    "ppm": b"P6 60000 60000 255\n",
    "tiff": b"II*\0\x08\0\0\0"
    + struct.pack("<H", 8)
    + b"".join(
        struct.pack("<HHII", *field)
        for field in [
            (256, 4, 1, 60000), (257, 4, 1, 60000), (258, 3, 1, 8), (259, 3, 1, 1),
            (262, 3, 1, 1), (273, 4, 1, 8), (277, 3, 1, 1), (279, 4, 1, 100),
        ]
    )
    + bytes(4),
}  # fmt: skip


@pytest.mark.parametrize("kind", HUGE)
def test_an_image_of_too_many_pixels_is_refused_by_its_header(kind, monkeypatch):
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("it was decoded"))
    assert len(HUGE[kind]) < 2000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UnusableImage, match=r"too many pixels|none of PNG"):
            Preparation(3, (8, 8), resize="box")(open_image(HUGE[kind]))


@pytest.mark.parametrize("length", [0, 10, 35, 50])
def test_a_truncated_image_is_named(length, tmp_path):
    (tmp_path / "half.png").write_bytes(png()[:length])
    assert "half.png" in error_of(Folder(str(tmp_path)))


@pytest.mark.parametrize("magic", [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", b"\x00\x00\x01\x00", b"8BPS"])
def test_only_the_formats_that_are_stated_are_opened_whatever_the_name(magic, tmp_path, monkeypatch):
    """Pillow hands EPS to Ghostscript, a program of its own."""
    monkeypatch.setattr(subprocess, "check_call", lambda *_, **__: pytest.fail("a program was started"))
    (tmp_path / "a.png").write_bytes(magic + bytes(100))
    assert "a.png: is not one of PNG, JPEG" in error_of(Folder(str(tmp_path)))


# Folders


def test_pipes_devices_and_dead_links_are_not_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    os.mkfifo(tmp_path / "without_extension")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "dead.png").symlink_to(tmp_path / "nowhere")
    error = error_of(Folder(str(tmp_path)))
    assert re.search(r"pipe\.png, \S+zero\.png: is not a regular file", error)
    assert "dead.png: does not exist" in error


def test_a_loop_of_links_is_named(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(png())
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    assert "are the same folder by a link" in error_of(Folder(str(tmp_path)))


# Labels

BAD_TABLES = {
    "nested": "[" * 10**6,
    "a number": "5",
    "labels as a number": '{"labels": 5}',
    "names that are none": '{"labels": [[["a.png"], 0]]}',
    "a label beyond printing": '{"labels": [["a.png", 1' + "0" * 5000 + "]]}",
    "not UTF-8": b"\xff\xfe",
}


@pytest.mark.parametrize("kind", BAD_TABLES)
def test_a_hostile_table_of_labels_is_one_error(kind, tmp_path):
    table = BAD_TABLES[kind] if isinstance(BAD_TABLES[kind], bytes) else BAD_TABLES[kind].encode()
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", png())
        archive.writestr("dataset.json", table)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.png").write_bytes(png())
    (tmp_path / "folder" / "dataset.json").write_bytes(table)
    for source in (Zip(str(tmp_path / "a.zip")), Folder(str(tmp_path / "folder"))):
        error = error_of(source)
        assert "dataset.json" in error
        assert len(error) < 6000


# Zip files


def hostile_zip(path, data, name="a.png"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, data)
    return Zip(str(path))


@pytest.mark.parametrize("name", ["../../evil.png", "{absolute}/evil.png", "a/../../evil.png", "C:\\evil.png"])
def test_names_that_lead_out_of_a_zip_file_write_nothing(name, tmp_path):
    (tmp_path / "in" / "side").mkdir(parents=True)
    name = name.format(absolute=tmp_path)
    source = hostile_zip(tmp_path / "in" / "side" / "a.zip", png(), name=name)
    with zipfile.ZipFile(source.path, "a") as archive:
        archive.writestr("good.png", png())
    before = sorted(tmp_path.rglob("*"))
    module = ImageDataModule(replace(source, layout="flat"), "evil", 3, 8, 1)
    module.setup("fit")
    assert len(module.split("train")) == (1 if ".." in name else 2)  # hidden folders are passed over
    assert sorted(tmp_path.rglob("*")) == before


def test_a_link_in_a_zip_file_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    link = zipfile.ZipInfo("link.png")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret.png"))
    assert "link.png is a link; pack files instead (zip without -y)" in error_of(Zip(str(tmp_path / "a.zip")))


@pytest.mark.parametrize("cut", [10, 1000])
def test_a_damaged_zip_file_is_one_error(cut, tmp_path):
    source = hostile_zip(tmp_path / "a.zip", png())
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(data[:-cut])
    assert "a.zip" in error_of(source)


# Parquet files


def written(path, column, **options):
    pq.write_table(pa.table({"image": column}), path, **options)
    return Parquet(str(path))


@pytest.mark.parametrize("spoil", ["footer", "length", "no footer", "pages", "zeros"])
def test_a_damaged_parquet_file_is_one_error(spoil, tmp_path):
    source = written(tmp_path / "a.parquet", [png()] * 20, use_dictionary=False, compression="none")
    data = bytearray((tmp_path / "a.parquet").read_bytes())
    if spoil == "footer":
        data[-60:-20] = bytes(range(40))
    elif spoil == "length":
        data[-8:-4] = struct.pack("<I", 2**31 - 1)
    elif spoil == "no footer":
        data = data[:-8]
    elif spoil == "pages":
        data[4:40] = b"\xff" * 36
    else:
        data = bytearray(200)
    (tmp_path / "a.parquet").write_bytes(data)
    assert "a.parquet" in error_of(source)


@pytest.mark.parametrize("path", ["../secret.png", "/etc/hostname", "a/../../secret.png", "/dev/zero"])
def test_a_parquet_file_names_no_file_outside_of_its_folder(path, tmp_path):
    (tmp_path / "secret.png").write_bytes(png())
    (tmp_path / "data").mkdir()
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    source = written(tmp_path / "data" / "a.parquet", pa.array([{"bytes": None, "path": path}], kind))
    assert "names a file that is not beside" in error_of(source)


@pytest.mark.parametrize(
    "metadata",
    [b"[" * 10**6, b"\xff", b"[]", b"5", b'{"info": 5}', b'{"info": {"features": []}}'],
    ids=range(6),
)
def test_hostile_metadata_are_passed_over(metadata, tmp_path):
    table = pa.table({"image": [png()] * 2}).replace_schema_metadata({b"huggingface": metadata})
    pq.write_table(table, tmp_path / "a.parquet")
    assert len(Parquet(str(tmp_path / "a.parquet")).open()) == 2


@pytest.mark.parametrize("names", [5, [1, 2], [["a"]], {"a": 1}, "ab"], ids=str)
def test_hostile_class_names_are_one_error_or_texts(names, tmp_path):
    features = {"label": {"_type": "ClassLabel", "names": names}}
    table = pa.table({"image": [png()], "label": [0]})
    metadata = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="must name the classes of 'label' in"):
        Parquet(str(tmp_path / "a.parquet")).open()


def test_a_pipe_or_a_device_is_no_parquet_file(tmp_path):
    os.mkfifo(tmp_path / "a.parquet")
    os.mkfifo(tmp_path / "a.tar")
    for source, path in ((Parquet, tmp_path / "a.parquet"), (Parquet, "/dev/zero"), (WebDataset, tmp_path / "a.tar")):
        assert "not a regular file" in error_of(source(str(path)))


# torchvision's pickles of CIFAR-10


class Evil:
    def __init__(self, mark):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def test_cifar10s_pickles_are_opened_only_with_the_right_checksum(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("batches.meta", "test_batch", *(f"data_batch_{n}" for n in range(1, 6))):
        (folder / name).write_bytes(pickle.dumps(Evil(tmp_path / "mark")))
    assert "does not contain CIFAR-10 (or a file is damaged)" in error_of(Cifar10(str(tmp_path)))
    assert not (tmp_path / "mark").exists()
