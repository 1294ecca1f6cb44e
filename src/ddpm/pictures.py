"""Pictures for people: grids of images, and grids in motion."""

import math
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid


def grid(images: Tensor, num_columns: int | None = None) -> Tensor:
    """uint8 `[B, C, H, W]` as one picture, uint8 `[H', W', 3]` on the CPU; nearly square if not told otherwise."""
    columns = num_columns or math.ceil(math.sqrt(len(images)))
    return make_grid(images.cpu(), nrow=columns, padding=2, pad_value=128).permute(1, 2, 0).contiguous()


def save_gif(path: Path, frames: Sequence[Tensor], seconds: float = 4, hold_seconds: float = 2) -> None:
    """Frames, uint8 `[H, W, 3]`, as a GIF of `seconds` that holds its last frame, then starts again."""
    images = [Image.fromarray(frame.numpy()) for frame in frames]
    each = round(1000 * seconds / len(images))
    durations = [each] * (len(images) - 1) + [round(1000 * hold_seconds)]
    images[0].save(path, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0)
