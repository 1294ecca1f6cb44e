"""Open an image file and read its header: format and size are known before pixels are decoded."""

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

from ddpm.base.memory import require_memory
from ddpm.data.images import UnusableImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""Allowed formats, independent of the file name. Pillow has forty more; for EPS it would start Ghostscript."""


def open_image(source: Path | bytes) -> Image.Image:
    """Decoded on first use. Raises UnusableImage, also for more than 179 million pixels, Pillow's own limit."""
    if isinstance(source, Path):
        if not source.is_file():
            raise UnusableImage("is not a regular file" if source.exists() else "does not exist")
        require_memory(source.stat().st_size, "the file")
        source = source.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # it starts at half of the limit
            return Image.open(BytesIO(source), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnusableImage(f"is not one of {', '.join(FORMATS)}, or its header is damaged") from None
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"has too many pixels: {error}; make it smaller first") from None
