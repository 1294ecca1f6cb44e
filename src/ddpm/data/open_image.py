"""An image file opened as far as its header: its format and its size are known before a pixel is decoded."""

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

from ddpm.base.memory import require_memory
from ddpm.data.images import UnusableImage

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What a file may be, whatever its name. Pillow knows forty more; for EPS it starts Ghostscript."""


def open_image(source: Path | bytes) -> Image.Image:
    """Decoded on first use. Raises UnusableImage, also for more than 179 million pixels, Pillow's own limit."""
    if isinstance(source, Path):
        if not source.is_file():
            raise UnusableImage("is not a regular file" if source.exists() else "is not there")
        require_memory(source.stat().st_size, "the file")
        source = source.read_bytes()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # from half of the limit on
            return Image.open(BytesIO(source), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnusableImage(f"is none of {', '.join(FORMATS)}, or its header is damaged") from None
    except Image.DecompressionBombError as error:
        raise UnusableImage(f"has too many pixels: {error}; make it smaller first") from None
