"""Images in an .npz file as guided diffusion's evaluations use them (Dhariwal and Nichol 2021), or in a plain .npy.

`arr_0` holds the pixels, uint8 `[N, H, W, 1 or 3]` or `[N, H, W]`, and `arr_1`, if it is there, a class for each.
"""

import math
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

import numpy as np
import torch
from torch import Tensor

from ddpm.base import check
from ddpm.data.open_image import MAX_PIXELS
from ddpm.data.sources.base import ArrayImages, Images, sha256_of_parts

MAX_INFLATED = 2**31
"""Bytes of one compressed array, which has to be held in memory."""

MAX_HEADER = 2**14
ZIP, NPY = b"PK", b"\x93NUMPY"
LOCAL_HEADER = 30  # bytes before an entry's name; the lengths of name and extra field are the last four


class Header(NamedTuple):
    shape: tuple[int, ...]
    fortran: bool
    dtype: np.dtype
    start: int  # of the numbers, in bytes

    @property
    def end(self) -> int:
        return self.start + math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Npz:
    """path: the file, of which nothing is unpickled. Of an array that is stored as it is (np.savez, np.save) each
    image is read when it is needed; a compressed one is held in memory."""

    path: str

    def open(self) -> Images:
        path = Path(self.path)
        if not path.is_file():
            check.fail("data.source.path", str(path), "an existing .npz or .npy file")
        try:
            with open(path, "rb") as file:
                kind = file.read(len(NPY))
                file.seek(0)
                if kind == NPY:
                    return of_npy(path, file)
            if kind[: len(ZIP)] != ZIP:
                raise ValueError("it is neither")
            with ZipFile(path) as archive:
                return of_npz(path, archive)
        except Exception as error:  # whatever a damaged or hostile file provokes
            raise ValueError(
                f"data.source.path={str(path)!r} cannot be read as an .npz or .npy file of images: {error}"
            ) from error


def of_npy(path: Path, file: BinaryIO) -> "RowImages":
    size = path.stat().st_size
    header = header_of(file.read(MAX_HEADER), size, path.name)
    shape = image_shape(header, path.name)
    return RowImages(path, header.start, shape, no_labels(header), f"{path.name} {size}")


def of_npz(path: Path, archive: ZipFile) -> Images:
    entries = {entry.filename.removesuffix(".npy"): entry for entry in archive.infolist()}
    if "arr_0" not in entries:
        found = ", ".join(sorted(entries)[:10]) or "nothing"
        hint = "; mu and sigma are the statistics of images and no images" if {"mu", "sigma"} <= entries.keys() else ""
        raise ValueError(f"it must hold the pixels as arr_0, and holds {found}{hint}")
    entry = entries["arr_0"]
    header = header_in(archive, entry)
    shape = image_shape(header, "arr_0")
    labels = labels_in(archive, entries["arr_1"], shape[0]) if "arr_1" in entries else no_labels(header)
    if entry.compress_type == ZIP_STORED:
        start = start_in_file(path, entry)
        if start + entry.file_size > path.stat().st_size:
            raise ValueError("arr_0 ends before it has all of its bytes")
        listing = " ".join(f"{e.filename} {e.file_size} {e.CRC:08x}" for e in entries.values())
        return RowImages(path, start + header.start, shape, labels, listing)
    return ArrayImages(str(path), inflate_entry(archive, entry, header), labels, ())


def header_of(beginning: bytes, size: int, name: str) -> Header:
    """What the first bytes of an array of `size` bytes say, held against that size before any memory is taken."""
    file = BytesIO(beginning)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    header = Header(*read(file), file.tell())
    if min(header.shape, default=0) < 0 or (header.end != size and not header.dtype.hasobject):
        raise ValueError(f"{name} has {size:,} bytes, but says that it is {header.dtype} {list(header.shape)}")
    return header


def header_in(archive: ZipFile, entry: ZipInfo) -> Header:
    if entry.compress_type not in (ZIP_STORED, ZIP_DEFLATED):
        raise ValueError(f"{entry.filename} is compressed by another method than deflate; write it with np.savez")
    with archive.open(entry) as file:
        return header_of(file.read(MAX_HEADER), entry.file_size, entry.filename)


def image_shape(header: Header, name: str) -> tuple[int, int, int, int]:
    """(N, H, W, C); ValueError with a remedy unless these are images of 8 bits."""
    if header.dtype.hasobject:
        raise ValueError(f"{name} holds pickled objects, which are not read; store uint8 [N, H, W, 3]")
    if header.dtype != np.uint8:
        raise ValueError(
            f"{name} must be uint8, and is {header.dtype}, whose range is not known; "
            "store 8-bit pixels, as (255 * x).round().clip(0, 255).astype(np.uint8) for x in 0..1"
        )
    shape = header.shape if len(header.shape) == 4 else (*header.shape, 1)
    if len(shape) != 4 or shape[3] not in (1, 3) or min(shape) < 1:
        channels_first = len(shape) == 4 and shape[1] in (1, 3)
        remedy = "; turn it with .transpose(0, 2, 3, 1)" if channels_first else ""
        raise ValueError(f"{name} must be [N, H, W, 1 or 3] or [N, H, W], and is {list(header.shape)}{remedy}")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise ValueError(f"{name} is of images of {shape[1]} x {shape[2]}, and one may have {MAX_PIXELS:,} pixels")
    if header.fortran:
        raise ValueError(f"{name} is in Fortran's order; store np.ascontiguousarray of it")
    return shape


def labels_in(archive: ZipFile, entry: ZipInfo, num_images: int) -> Tensor:
    """int64 `[N]`"""
    header = header_in(archive, entry)
    if header.dtype.kind not in "iu" or header.shape != (num_images,):
        raise ValueError(
            f"arr_1 must be the class of each image, integers [{num_images}], "
            f"and is {header.dtype} {list(header.shape)}; leave it out if it is something else"
        )
    labels = inflate_entry(archive, entry, header)
    if labels.min() < -1 or labels.max() >= 2**31:
        wrong = labels[(labels < -1) | (labels >= 2**31)][0]
        raise ValueError(f"arr_1: a label must be the number of a class (-1: none), got {wrong}")
    return torch.from_numpy(labels.astype(np.int64))


def no_labels(header: Header) -> Tensor:
    return torch.full((header.shape[0],), -1)


def inflate_entry(archive: ZipFile, entry: ZipInfo, header: Header) -> np.ndarray:
    """The numbers of an entry. Read by its stated length, which inflates no more than that even where it is a lie."""
    if entry.file_size > MAX_INFLATED:
        raise ValueError(
            f"{entry.filename} inflates to {entry.file_size:,} bytes, and may to {MAX_INFLATED:,}; "
            "write it with np.savez, which does not compress and of which single images are read"
        )
    with archive.open(entry) as file:
        file.read(header.start)
        data = file.read(entry.file_size - header.start)
    return np.frombuffer(data, header.dtype).reshape(header.shape)


def start_in_file(path: Path, entry: ZipInfo) -> int:
    """Where the bytes of a stored entry begin. Its own header may be longer than the one in the file's directory."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        lengths = file.read(LOCAL_HEADER)[-4:]
    return (
        entry.header_offset
        + LOCAL_HEADER
        + int.from_bytes(lengths[:2], "little")
        + int.from_bytes(lengths[2:], "little")
    )


@dataclass(frozen=True)
class RowImages:
    """Images that lie one after another in a file from byte `start` on. shape: (N, H, W, C).

    Nothing is kept open or mapped, so any process reads any image, and a file that was cut short is an error that names
    the image. The zip file's checksum is of the whole array, so it is not looked at.
    """

    path: Path
    start: int
    shape: tuple[int, int, int, int]
    labels: Tensor
    listing: str
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.shape[0]

    def image(self, index: int) -> np.ndarray:
        size = math.prod(self.shape[1:])
        row = np.fromfile(self.path, np.uint8, size, offset=self.start + index * size)
        return row.reshape(self.shape[1:])

    def name(self, index: int) -> str:
        return f"{self.path} image {index}"

    def fingerprint(self) -> str:
        return sha256_of_parts([self.listing])
