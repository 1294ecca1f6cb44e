"""The pictures of a run on the page, within a size limit: the last grid large, earlier ones small.

Each is decoded, reduced if it is large, and encoded again, so that only pixels of a file reach the page.
"""

import base64
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from ddpm.data.open_image import open_image

MAX_BYTES = 12 * 2**20  # all pictures of a page as PNG; base64 adds a third
MAX_WIDTH, THUMBNAIL = 1200, 160
MAX_THUMBNAILS, MAX_KINDS = 10, 3  # kinds of weights


@dataclass
class Picture:
    """step: as text. address: `data:image/png;base64,...`; empty if `problem` states why it cannot be shown."""

    step: str
    size: tuple[int, int] = (0, 0)
    address: str = ""
    problem: str = ""
    is_scaled: bool = False


def picture_paths(folder: Path) -> list[Path]:
    """The PNG files in a folder, by step."""
    return sorted(folder.glob("[!.]*.png"), key=lambda path: path.name.rjust(30, "0"))


def album(folder: Path, max_bytes: int) -> dict[str, list[Picture]]:
    """Grids by weights, averaged ones first: the last of each, and earlier ones of the first. "": denoising strip."""
    kinds = {path.name: files for path in (folder / "samples").glob("[!.]*") if (files := picture_paths(path))}
    found = {"": [load_picture(path, MAX_WIDTH, max_bytes // 8) for path in picture_paths(folder / "denoising")[-1:]]}
    for place, name in enumerate(sorted(kinds, key=lambda name: (not name.startswith("ema"), name))[:MAX_KINDS]):
        *earlier, last = kinds[name]
        spread = {round(k * (len(earlier) - 1) / (MAX_THUMBNAILS - 1)) for k in range(MAX_THUMBNAILS)}
        chosen = [earlier[k] for k in sorted(spread)] if earlier and place == 0 else []
        small = [load_picture(path, THUMBNAIL, max_bytes // 8 // MAX_THUMBNAILS) for path in chosen]
        found[name] = [*small, load_picture(last, MAX_WIDTH, max_bytes // (8 if place else 2))]
    return found


def load_picture(path: Path, width: int, max_bytes: int) -> Picture:
    """Load a picture with at most this width. max_bytes: limit of the PNG; the picture is reduced until it fits."""
    is_number = path.stem.isascii() and path.stem.isdigit() and len(path.stem) < 16
    found = Picture(f"step {int(path.stem):,}" if is_number else "step not known")
    try:
        image = open_image(path)
        if image.format != "PNG":
            raise ValueError("is not a PNG")
        image = image.convert("L" if image.mode in ("1", "L", "I;16") else "RGB")
    except (ValueError, OSError, SyntaxError, MemoryError) as error:
        found.problem = f"{path.parent.name}/{path.name} cannot be shown: {error}."
        return found
    full = image.size
    while True:
        image.thumbnail((width, 4 * width), Image.Resampling.LANCZOS)
        file = io.BytesIO()
        image.save(file, "PNG")
        if file.tell() <= max_bytes or width <= 64:
            found.size, found.is_scaled = image.size, image.size != full
            found.address = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
            return found
        width = int(min(width, image.width) * min(0.85, (max_bytes / file.tell()) ** 0.5))
