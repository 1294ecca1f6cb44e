"""The settings of a U-Net or of half of one, checked: plain values, or a ValueError about the first that cannot be."""

from collections.abc import Sequence
from typing import Any

from ddpm.base import check
from ddpm.networks.conventions import CONVENTIONS

MAX_RES_BLOCKS, MAX_LEVELS = 64, 12  # beyond any U-Net; a setting out of a file must not build blocks without end

LISTS = ("channel_mults", "attention_levels")
CLAIMS = ("scale_shift", "self_condition", "low_res")
WORDS = {"resample": ("conv", "block"), "convention": tuple(CONVENTIONS)}
OPTIONAL = ("head_channels", "time_channels", "num_timesteps", "num_classes", "token_channels")


def check_settings(**settings: Any) -> dict[str, Any]:
    for name, value in settings.items():
        if name in LISTS:
            if not isinstance(value, Sequence) or isinstance(value, str):
                check.fail(name, value, "a list of integers")
            settings[name] = list(value)
        elif name == "dropout":
            check.number(name, value, low=0.0, high=1.0)
        elif name in CLAIMS:
            check.boolean(name, value)
        elif name in WORDS:
            check.one_of(name, value, WORDS[name])
        elif name not in OPTIONAL or value is not None:
            check.positive_int(name, value)

    check.integer("num_res_blocks", settings["num_res_blocks"], 1, MAX_RES_BLOCKS)
    mults, levels = settings["channel_mults"], settings["attention_levels"]
    if not mults:
        check.fail("channel_mults", mults, "a list of one integer per level, such as [1, 2, 2]")
    if len(mults) > MAX_LEVELS:
        check.fail("channel_mults", f"{len(mults)} numbers", f"at most {MAX_LEVELS}: each level halves the image")
    for mult in mults:
        check.positive_int("channel_mults", mult)
    for level in levels:
        check.integer("attention_levels", level, low=0, high=len(mults) - 1)

    base, groups = settings["base_channels"], settings["num_groups"]
    if base < 4 or base % 2 or base % groups:
        check.fail("base_channels", base, f"even, at least 4 and a multiple of num_groups = {groups}")
    if settings["time_channels"] is not None and (settings["time_channels"] < 4 or settings["time_channels"] % 2):
        check.fail(
            "time_channels", settings["time_channels"], "even and at least 4, since half of the waves are cosines"
        )
    if settings["head_channels"] is not None and settings["num_heads"] != 1:
        check.fail("num_heads", settings["num_heads"], "1 with head_channels, which says how many heads each level has")
    name = "num_heads" if settings["head_channels"] is None else "head_channels"
    for width in {base * mults[level] for level in (*levels, -1)}:
        if width % settings[name]:
            check.fail(name, settings[name], f"a divisor of {width}, the width of a level with attention")
    return settings


def height_and_width(size: int | Sequence[int]) -> tuple[int, int]:
    """size: one length or [height, width]."""
    if isinstance(size, Sequence) and not isinstance(size, str) and len(size) == 2:
        height, width = (check.positive_int(f"size[{i}]", side) for i, side in enumerate(size))
        return height, width
    if isinstance(size, bool) or not isinstance(size, int) or size < 1:
        check.fail("size", size, "one length or [height, width]")
    return size, size


def check_size(size: Sequence[int], num_levels: int, patch_size: int) -> None:
    """size: height and width of an image."""
    divisor = patch_size * 2 ** (num_levels - 1)
    if any(side % divisor for side in size):
        smaller = " x ".join(str(max(side // divisor, 1) * divisor) for side in size)
        larger = " x ".join(str(-(-side // divisor) * divisor) for side in size)
        raise ValueError(
            f"image size {' x '.join(map(str, size))} does not divide by {divisor} = patch_size * 2^(levels - 1); "
            f"resize or pad the images to {smaller} or {larger}, or use fewer levels (channel_mults)"
        )
