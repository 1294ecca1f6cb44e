"""PNG files of a run as `data:` addresses: checked, made smaller where they are large, and nothing of the file kept.

Each picture is decoded and written anew, so that only its pixels reach the page.
"""

import base64
import io
import struct
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

MAX_BYTES = 64 * 2**20
MAX_PIXELS = 40_000_000
MAGIC = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Drawn:
    """A picture that a run drew. step: None where the file's name is no number."""

    path: Path
    step: int | None


@dataclass(frozen=True)
class Embedded:
    """address: `data:image/png;base64,...`. scaled: whether it is smaller than the file's picture."""

    address: str
    width: int
    height: int
    scaled: bool


def drawn(folder: Path) -> list[Drawn]:
    """The PNG files in a folder, by step."""
    if not folder.is_dir():
        return []
    files = [path for path in folder.iterdir() if path.suffix == ".png" and not path.name.startswith(".")]
    found = [Drawn(path, int(path.stem) if path.stem.isascii() and path.stem.isdigit() else None) for path in files]
    return sorted(found, key=lambda each: (-1 if each.step is None else each.step, each.path.name))


def embedded(path: Path, max_width: int, max_bytes: int) -> Embedded:
    """ValueError where it is no PNG that can be shown. max_bytes: of the PNG; the picture shrinks until it fits."""
    image = opened(path)
    full = image.size
    width = min(max_width, image.width, max(1, 4 * max_width * image.width // image.height))
    while True:
        size = (width, max(1, round(full[1] * width / full[0])))
        small = image if size == full else image.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)
        file = io.BytesIO()
        small.save(file, "PNG", compress_level=7)
        if file.tell() <= max_bytes or width <= 64:
            address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
            return Embedded(address, *size, scaled=size != full)
        width = max(64, int(width * min(0.85, (max_bytes / file.tell()) ** 0.5)))


def opened(path: Path) -> Image.Image:
    if not path.is_file():
        raise ValueError("it is not a file")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"it has more than {MAX_BYTES:,} bytes")
    data = path.read_bytes()
    if not data.startswith(MAGIC) or len(data) < 33:
        raise ValueError("it is not a PNG")
    width, height = struct.unpack(">II", data[16:24])
    if not 0 < width * height <= MAX_PIXELS:
        raise ValueError(f"it has {width:,} x {height:,} pixels, and at most {MAX_PIXELS:,} are shown")
    try:
        Image.open(io.BytesIO(data), formats=["PNG"]).verify()
        image = Image.open(io.BytesIO(data), formats=["PNG"])
        image.load()
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"it is damaged: {error}") from None
    return image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
