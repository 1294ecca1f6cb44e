"""Images in an .npz file as used by the evaluations of guided diffusion (Dhariwal and Nichol 2021), or in an .npy file.

`arr_0` contains the pixels, uint8 `[N, H, W, 1 or 3]` or `[N, H, W]`. `arr_1` is optional and contains the classes;
`captions`, of sample.py, is optional and contains texts.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZIP_STORED, ZipInfo

import numpy as np
from numpy.lib.npyio import NpzFile
from torch import Tensor

from ddpm.base import check
from ddpm.base.file_kind import explain_numpy
from ddpm.base.memory import require_memory
from ddpm.data.sources.base import ArrayImages, DescribedImages, Images, sha256_of_parts
from ddpm.data.sources.class_numbers import Labels, no_labels, number_classes

CAPTIONS = "captions"
"""The name of the array of texts."""
LOCAL_HEADER = 30  # bytes before the name of an entry; the last four are the lengths of name and extra field


@dataclass(frozen=True)
class Npz:
    """path: the file. Pickled content is not loaded. From an uncompressed array (np.savez, np.save), images are read on
    demand; a compressed array is held in memory."""

    path: str

    def open(self) -> Images:
        path = Path(self.path)
        if not path.is_file():
            check.fail("data.source.path", str(path), "an existing .npz or .npy file")
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
            if isinstance(found, np.ndarray):
                return of_npy(path, found)
            with found:
                return of_npz(path, found)
        except Exception as error:  # any error of a damaged or hostile file
            why = explain_numpy(error)
            raise ValueError(
                f"data.source.path={str(path)!r} cannot be read as an .npz or .npy file of images: {why}"
            ) from error


def of_npy(path: Path, pixels: np.memmap) -> "RowImages":
    shape = image_shape("the array", pixels.dtype, pixels.shape, np.isfortran(pixels))
    return RowImages(path, pixels.offset, shape, f"{path.name} {path.stat().st_size}", *no_labels(shape[0]))


def of_npz(path: Path, arrays: NpzFile) -> Images:
    if "arr_0" not in arrays.files:
        found = ", ".join(sorted(arrays.files)[:10]) or "nothing"
        hint = "; mu and sigma are statistics, not images" if "mu" in arrays.files else ""
        remedy = "" if hint else "; write np.savez(path, pixels, labels)"
        raise ValueError(f"it must contain the pixels as arr_0, but contains {found}{hint}{remedy}")
    entry = arrays.zip.getinfo("arr_0.npy")
    with arrays.zip.open(entry) as file:
        version, _ = np.lib.format.read_magic(file)
        read_header = np.lib.format.read_array_header_1_0 if version == 1 else np.lib.format.read_array_header_2_0
        shape, fortran, dtype = read_header(file)
        start = file.tell()
    shape = image_shape("arr_0", dtype, shape, fortran)
    if start + math.prod(shape) != entry.file_size:
        raise ValueError(f"arr_0 has {entry.file_size:,} bytes, but states uint8 {list(shape)}")
    labels = labels_in(path, arrays, shape[0]) if "arr_1" in arrays.files else no_labels(shape[0])
    captions = captions_in(arrays, shape[0]) if CAPTIONS in arrays.files else None
    images: Images
    if entry.compress_type == ZIP_STORED:
        listing = " ".join(f"{e.filename} {e.file_size} {e.CRC:08x}" for e in arrays.zip.infolist())
        images = RowImages(path, start_in_file(path, entry) + start, shape, listing, *labels)
    else:
        require_memory(entry.file_size, "arr_0 (which is held in memory if it is compressed; write it with np.savez)")
        images = ArrayImages(str(path), arrays["arr_0"], *labels)
    return images if captions is None else DescribedImages(images, captions)


def image_shape(name: str, dtype: np.dtype, shape: tuple[int, ...], fortran: bool) -> tuple[int, int, int, int]:
    """(N, H, W, C). Raises ValueError with a remedy unless these are 8-bit images."""
    if dtype != np.uint8:
        raise ValueError(
            f"{name} must be uint8, but is {dtype}, whose range is unknown; "
            "store 8-bit pixels, as (255 * x).round().clip(0, 255).astype(np.uint8) for x in 0..1"
        )
    all_four = shape if len(shape) == 4 else (*shape, 1)
    if len(all_four) != 4 or all_four[3] not in (1, 3) or min(all_four) < 1:
        channels_first = len(all_four) == 4 and all_four[1] in (1, 3)
        remedy = "; use .transpose(0, 2, 3, 1)" if channels_first else ""
        raise ValueError(f"{name} must be [N, H, W, 1 or 3] or [N, H, W], but is {list(shape)}{remedy}")
    if len(shape) == 3 and shape[2] in (1, 3):
        raise ValueError(f"{name} must be [N, H, W, 1 or 3] or [N, H, W], but is {list(shape)}, one image; use [None]")
    if fortran:
        raise ValueError(f"{name} is in Fortran order; store np.ascontiguousarray of it")
    return all_four


def labels_in(path: Path, arrays: NpzFile, num_images: int) -> Labels:
    require_memory(arrays.zip.getinfo("arr_1.npy").file_size, "arr_1")
    values = arrays["arr_1"]
    if values.shape == (num_images, 1):
        values = values[:, 0]
    if values.shape[:1] != (num_images,):
        return no_labels(num_images, f"arr_1 must have a label for each of the {num_images} images, not {values.shape}")
    return number_classes(values.tolist(), f"{path}: a label in arr_1", lambda number: f"image {number}")


def captions_in(arrays: NpzFile, num_images: int) -> list[str]:
    require_memory(arrays.zip.getinfo(f"{CAPTIONS}.npy").file_size, CAPTIONS)
    texts = arrays[CAPTIONS]
    if texts.dtype.kind != "U" or texts.shape != (num_images,):
        raise ValueError(
            f"{CAPTIONS} must be {num_images} texts, one for each image, but is {texts.dtype} {texts.shape}"
        )
    return texts.tolist()


def start_in_file(path: Path, entry: ZipInfo) -> int:
    """Offset of the data of an uncompressed entry. Its local header can be longer than the one in the directory."""
    with open(path, "rb") as file:
        file.seek(entry.header_offset)
        lengths = np.frombuffer(file.read(LOCAL_HEADER)[-4:], "<u2")
    return entry.header_offset + LOCAL_HEADER + int(lengths.sum())


@dataclass(frozen=True)
class RowImages:
    """Images stored contiguously in a file from byte `start`. shape: (N, H, W, C).

    The file is opened for each read, so any process can read any image, and a truncated file raises an error that names
    the image. The checksum of the zip file is not verified, because it covers the whole array.
    """

    path: Path
    start: int
    shape: tuple[int, int, int, int]
    listing: str
    labels: Tensor
    class_names: tuple[str, ...] = ()
    label_problem: str = ""

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
