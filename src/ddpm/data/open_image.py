"""Open an image file and read its header: format and size are known before pixels are decoded."""

import warnings
from io import BytesIO
from pathlib import Path, PurePath

from PIL import Image

from ddpm.base.memory import require_memory
from ddpm.data.images import UnusableImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Allowed formats, independent of the file name. Pillow has forty more; for EPS it would start Ghostscript."""
NEWER_FORMATS = ("AVIF", "JPEG2000")
"""Formats that not every Pillow has. They are tried last, because this loads all its plugins."""
BEGINNINGS = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    *(b"....ftypavif", b"RIFF....WEBP"),
)
"""First bytes of these formats, where a dot is any byte. Those of BMP and PPM are too short to be sure."""
TEXTS = (".txt", ".json", ".jsonl", ".csv", ".tsv", ".md", ".xml", ".html", ".yaml", ".yml", ".npy", ".npz")


NUM_BYTES = max(map(len, BEGINNINGS))


def may_be_image(path: PurePath) -> bool:
    """Whether a file whose extension is not that of an image is to be looked into: not if it is hidden or a text."""
    return not is_hidden(path) and path.suffix.lower() not in TEXTS


def is_hidden(path: PurePath) -> bool:
    """Whether it or a folder of it is, as `._a.png` and `__MACOSX`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def is_image_content(head: bytes) -> bool:
    """head: the first NUM_BYTES of a file."""
    return any(matches(head, start) for start in BEGINNINGS)


def head_of(path: Path) -> bytes:
    """The first NUM_BYTES; none if the file cannot be read, or is a pipe, which could be waited for without end."""
    if not path.is_file():
        return b""
    try:
        with open(path, "rb") as file:
            return file.read(NUM_BYTES)
    except OSError:
        return b""


def matches(head: bytes, start: bytes) -> bool:
    return len(head) >= len(start) and all(b in (a, ord(".")) for a, b in zip(head, start, strict=False))


def open_image(source: Path | bytes) -> Image.Image:
    """Decoded on first use. Raises UnusableImage, also for more than 179 million pixels, Pillow's own limit."""
    if isinstance(source, Path):
        if not source.is_file():
            raise UnusableImage("is not a regular file" if source.exists() else "does not exist")
        require_memory(source.stat().st_size, "the file")
        source = source.read_bytes()
    if not source:
        raise UnusableImage("is an empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it starts at half of the limit
            return with_transparent_level(identified(source))
    except Image.UnidentifiedImageError:
        raise UnusableImage(f"is not one of {', '.join(FORMATS)}, or its header is damaged") from None
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"has too many pixels: {error}; make it smaller first") from None


def with_transparent_level(image: Image.Image) -> Image.Image:
    """A PNG file states its transparent colour in its own bits, and Pillow looks for it among 8."""
    colour, raw = image.info.get("transparency"), str(image.tile[0][3]) if image.tile else ""
    if isinstance(colour, tuple) and ";16" in raw:
        raise UnusableImage("has a transparent colour of 16 bits, of which 8 are read; store an alpha channel")
    if isinstance(colour, int):
        image.info["transparency"] = colour * {"L;2": 85, "L;4": 17}.get(raw, 1)
    return image


def identified(source: bytes) -> Image.Image:
    try:
        return Image.open(BytesIO(source), formats=FORMATS)
    except Image.UnidentifiedImageError:
        Image.init()
        return Image.open(BytesIO(source), formats=[name for name in NEWER_FORMATS if name in Image.OPEN])
