"""An image file opened as far as its header: its format and its size are known before a pixel is decoded."""

import warnings
from io import BytesIO
from pathlib import Path

from PIL import Image

from ddpm.data.images import UnusableImage

MAX_PIXELS = 2**26
"""8192 x 8192 and the like, 268 MB when decoded. Pillow by itself warns at 89 million pixels and refuses at 179."""

MAX_BYTES = 4 * MAX_PIXELS
"""Of an image as it is stored; as large as MAX_PIXELS with four channels and no compression."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM")
"""What a file may be, whatever its name. Pillow knows forty more; for EPS it starts Ghostscript."""


def open_image(source: Path | bytes) -> Image.Image:
    """Decoded on first use. Raises UnusableImage."""
    if isinstance(source, Path) and not source.is_file():
        raise UnusableImage("is not a regular file" if source.exists() else "is not there")
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if size > MAX_BYTES:
        raise UnusableImage(f"has {size:,} bytes, and an image may have {MAX_BYTES:,}; make it smaller first")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit here is stricter
            image = Image.open(BytesIO(source if isinstance(source, bytes) else source.read_bytes()), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise UnusableImage(f"is none of {', '.join(FORMATS)}, or its header is damaged") from None
    except Image.DecompressionBombError:
        raise UnusableImage(f"says it has more than {MAX_PIXELS:,} pixels; make it smaller first") from None
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise UnusableImage(
            f"is {image.height} x {image.width}, and an image may have {MAX_PIXELS:,} pixels; make it smaller first"
        )
    return image
