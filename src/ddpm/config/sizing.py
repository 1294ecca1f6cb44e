"""Choose what is null in model=unet_by_size and trainer.max_steps: the network follows the size of the images and the
device, the number of steps follows the number of images and the device.
"""

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.base import check

MULTIPLIERS = {1: [1], 2: [1, 2], 3: [1, 2, 2], 4: [1, 2, 2, 2], 5: [1, 1, 2, 2, 4], 6: [1, 1, 2, 2, 4, 4]}
"""Widths of the levels, by their number. Ho et al. 2020 have those of 4 and 6 levels, for 32 and 256 pixels."""
COARSEST = 8  # pixels: no further level below this
ATTENTION = 16  # pixels: levels up to this resolution have attention (Ho et al. 2020)


@dataclass(frozen=True)
class Budget:
    """patch_size: for images of at least 2 * COARSEST pixels. views: of each image, within fewest and most of all."""

    base_channels: int
    patch_size: int
    views: int
    fewest: int
    most: int


BUDGETS = {
    "cpu": Budget(base_channels=32, patch_size=2, views=50, fewest=160_000, most=320_000),
    "gpu": Budget(base_channels=128, patch_size=1, views=1000, fewest=3_200_000, most=25_600_000),
}


def network_for(size: tuple[int, int], device: str) -> dict[str, Any]:
    """Settings of a U-Net for images of this height and width, which must be divisible by 2 once for each level."""
    budget = BUDGETS[device]
    patch = budget.patch_size if min(size) >= 2 * COARSEST and not any(n % budget.patch_size for n in size) else 1
    sides = [n // patch for n in size]
    levels = 1
    while levels < max(MULTIPLIERS) and min(sides) >> levels >= COARSEST and not any(n % 2**levels for n in sides):
        levels += 1
    attention = [level for level in range(levels) if max(sides) >> level <= ATTENTION]
    return {
        "base_channels": budget.base_channels,
        "channel_mults": MULTIPLIERS[levels],
        "attention_levels": attention,
        "patch_size": patch,
    }


def steps_for(num_images: int, batch_size: int, device: str) -> int:
    """Optimizer steps, rounded to two digits."""
    budget = BUDGETS[device]
    steps = min(max(budget.views * num_images, budget.fewest), budget.most) / batch_size
    return max(1, int(float(f"{steps:.1e}")))


def choose_sizes(config: DictConfig, num_images: int, device: str, timed: bool) -> list[str]:
    """Set the fields that are null. Returns the fields with their values, as text.

    device: cpu or gpu. timed: the number of steps is chosen otherwise.
    """
    size = check.height_width("data.size", config.data.size)
    found = {f"model.{field}": value for field, value in network_for(size, device).items() if field in config.model}
    found |= {} if timed else {"trainer.max_steps": steps_for(num_images, config.data.batch_size, device)}
    found = {key: value for key, value in found.items() if OmegaConf.select(config, key) is None}
    for key, value in found.items():
        OmegaConf.update(config, key, value)
    return [f"{key}={value}".replace(" ", "") for key, value in found.items()]
