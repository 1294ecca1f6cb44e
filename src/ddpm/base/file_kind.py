"""What a file is by its first bytes, and what to do with it, where a file of torch.save was expected."""

from pathlib import Path
from zipfile import BadZipFile, ZipFile

UNPACK = "an archive: unpack it and give a file in it"
IMAGE = "an image: images=FOLDER is for images, ckpt=FILE for weights"
ARRAYS = "a file of NumPy arrays, not of torch.save"
KINDS = {
    b"<!doctype": "an HTML page, which is what some servers send instead of a file: download the file itself",
    b"<html": "an HTML page, which is what some servers send instead of a file: download the file itself",
    b"version https://git-lfs": "a pointer of Git LFS instead of the file: run git lfs pull in its repository",
    b"\x89png": IMAGE,
    b"\xff\xd8\xff": IMAGE,
    b"gif8": IMAGE,
    b"riff": IMAGE,
    b"\x93numpy": ARRAYS,
    b"\x89hdf": "a file of HDF5, as of Keras: only files of PyTorch can be read",
    b"\x1f\x8b": UNPACK,
    b"bzh": UNPACK,
    b"\xfd7zxz": UNPACK,
    b"\x28\xb5\x2f\xfd": UNPACK,
}
"""By the first bytes, in lower case."""
MAGIC_OF_OLD_TORCH = bytes.fromhex("6cfc9c46f9206aa85019")
NUM_BYTES = 512


def describe_foreign_file(path: Path) -> str | None:
    """For example "an image: ..."; None for a file of torch.save and for one of which nothing is known."""
    try:
        with open(path, "rb") as file:
            head = file.read(NUM_BYTES)
        size = path.stat().st_size
    except OSError:
        return None
    start = head.lstrip().lower() if head[:1].isspace() or head[:1] == b"<" else head.lower()
    if size == 0:
        return "an empty file: copy or download it again"
    if found := next((kind for magic, kind in KINDS.items() if start.startswith(magic)), None):
        return found
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") < size:
        has_settings = (path.parent / "config.json").is_file()
        remedy = f"give its folder, {path.parent}" if has_settings else "give a folder that has config.json beside it"
        return f"a file of safetensors, which has weights without settings: {remedy}"
    if head[:1] == b"\x80" and MAGIC_OF_OLD_TORCH in head:
        return "a file of torch.save before PyTorch 1.6: load and save it once with a newer PyTorch"
    if head[:1] == b"\x80":
        return "a pickle, which is not loaded because it can run code: save its weights with torch.save"
    if head[257:262] == b"ustar":
        return UNPACK
    return describe_zip(path) if head.startswith(b"PK") else describe_text(head)


NUMPY = {
    "No data left in file": "it is an empty file: copy or download it again",
    "File is not a zip file": "it is incomplete: copy or download it again",
    "contains pickled (object) data": "it does not begin as a file of NumPy arrays",
}
"""What errors of numpy.load mean; its own text may advise to unpickle the file."""


def explain_numpy(error: Exception) -> str:
    return next((meaning for text, meaning in NUMPY.items() if text in str(error)), str(error))


def describe_zip(path: Path) -> str | None:
    try:
        with ZipFile(path) as archive:
            names = archive.namelist()
    except (BadZipFile, OSError):
        return "incomplete: copy or download it again"
    if any(name.endswith("/constants.pkl") for name in names):
        return "a program of TorchScript: save its weights with torch.save(model.state_dict(), FILE)"
    if any(name.endswith("data.pkl") for name in names):
        return None
    return ARRAYS if all(name.endswith(".npy") for name in names) else UNPACK


def describe_text(head: bytes) -> str | None:
    text = head.decode(errors="ignore")
    is_text = len(head) - len(text.encode()) < 4 and all(each.isprintable() or each.isspace() for each in text)
    return "a text file, which holds no weights" if is_text else None
