"""Training flags of OpenAI's programs that cannot be derived from the weights.

They are known for the published files (Nichol and Dhariwal 2021, github.com/openai/improved-diffusion; Dhariwal and
Nichol 2021, github.com/openai/guided-diffusion; flags from the READMEs), which are recognized by their shapes. For
other weights NAME.pt, or for other flags, write the flags to NAME.json beside the weights.
"""

from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any

from ddpm.base import check
from ddpm.base.untrusted import json_file

SCHEDULES = ("linear", "cosine")


Architecture = dict[str, Any]
"""Settings derived from the weights, for our `UNet` or, with `size`, our `Classifier`."""


@dataclass(frozen=True)
class Flags:
    """The flags of OpenAI's training commands, by their names there.

    Exactly one of num_heads and num_head_channels is set. use_new_attention_order: order of the rows of queries, keys
    and values. rescale_timesteps: the network receives t * 1000 / diffusion_steps. sigma_small: use the small variance
    if the network does not learn one. small_size: size of the images that an upsampler enlarges; each of their pixels
    is the mean of a block. dropout does not affect sampling.
    """

    image_size: check.PositiveInt
    diffusion_steps: check.PositiveInt
    noise_schedule: Annotated[str, check.words(*SCHEDULES)]
    rescale_timesteps: bool
    use_new_attention_order: bool
    num_heads: check.PositiveInt | None = None
    num_head_channels: check.PositiveInt | None = None
    dropout: check.Share = 0.0
    predict_xstart: bool = False
    sigma_small: bool = False
    small_size: Annotated[int, check.integers(1)] | None = None

    def __post_init__(self) -> None:
        check.fields(self)
        if self.small_size is not None and self.image_size % self.small_size:
            check.fail("small_size", self.small_size, f"a divisor of image_size = {self.image_size}")
        heads = {name: value for name in HEADS if (value := getattr(self, name)) is not None}
        if len(heads) != 1:
            check.fail(" and ".join(HEADS), heads, "one or the other")

    def num_heads_at(self, width: int) -> int:
        """Number of heads of an attention over `width` channels."""
        heads = self.num_heads or (width // self.num_head_channels if width % self.num_head_channels == 0 else 0)
        if not heads or width % heads:
            name = "num_heads" if self.num_heads else "num_head_channels"
            check.fail(name, getattr(self, name), f"a divisor of {width}, the width of a level with attention")
        return heads


HEADS = ("num_heads", "num_head_channels")
NEEDED = [field.name for field in fields(Flags) if field.default is MISSING]
KNOWN = [field.name for field in fields(Flags)]


# The published files. Level 0 has the highest resolution.

AT_32, AT_64, AT_128, AT_256 = [1, 2, 2, 2], [1, 2, 3, 4], [1, 1, 2, 3, 4], [1, 1, 2, 2, 4, 4]
AT_512 = [1, 2, 2, 4, 4, 8, 8]  # 0.5, 1, 1, 2, 2, 4, 4 in the original, for twice the base channels


def levels(base: int, mults: list[int], blocks: int, attention: list[int], **others: Any) -> Architecture:
    common = {"in_channels": 3, "scale_shift": True, "resample": "conv", "time_channels": None}
    sizes = {"base_channels": base, "channel_mults": mults, "num_res_blocks": blocks, "attention_levels": attention}
    return common | sizes | others


def unet(*sizes: Any, **others: Any) -> Architecture:
    return levels(
        *sizes, **{"out_channels": 6, "num_classes": None, "concat_channels": False} | others
    )  # a learned variance


def classifier(size: int, mults: list[int], blocks: int, **others: Any) -> Architecture:
    attention = list(range(len(mults) - 3, len(mults)))  # at 32, 16 and 8 pixels
    return levels(128, mults, blocks, attention, **{"size": size} | IMAGENET | BLOCKS | others)


IMAGENET = {"num_classes": 1000}
BLOCKS = {"resample": "block"}


def improved(size: int, schedule: str, steps: int, rescale: bool, num_heads: int = 4, **others: Any) -> Flags:
    return Flags(size, steps, schedule, rescale, use_new_attention_order=False, num_heads=num_heads, **others)


def guided(size: int, schedule: str = "linear", num_heads: int | None = None, **others: Any) -> Flags:
    heads = {"num_heads": num_heads, "num_head_channels": None if num_heads else 64}
    return Flags(size, 1000, schedule, rescale_timesteps=False, **{"use_new_attention_order": False, **heads, **others})


PUBLISHED: dict[str, tuple[Architecture, Flags]] = {
    "cifar10_uncond_50M_500K": (unet(128, AT_32, 3, [1, 2]), improved(32, "cosine", 4000, True, dropout=0.3)),
    "imagenet64_uncond_100M_1500K": (unet(128, AT_64, 3, [2, 3]), improved(64, "cosine", 4000, True)),
    "imagenet64_cond_270M_250K": (unet(192, AT_64, 3, [2, 3], **IMAGENET), improved(64, "cosine", 4000, False)),
    "upsample_cond_500K": (
        unet(192, AT_256, 2, [4, 5], **IMAGENET, concat_channels=True),
        improved(256, "linear", 4000, False, small_size=64),
    ),
    "lsun_uncond_100M_2400K_bs64": (
        unet(128, AT_256, 2, [4], scale_shift=False),
        improved(256, "linear", 1000, False, num_heads=1),
    ),
    "64x64_diffusion": (
        unet(192, AT_64, 3, [1, 2, 3], **IMAGENET, **BLOCKS),
        guided(64, "cosine", dropout=0.1, use_new_attention_order=True),
    ),
    "128x128_diffusion": (unet(256, AT_128, 2, [2, 3, 4], **IMAGENET, **BLOCKS), guided(128, num_heads=4)),
    "256x256_diffusion": (unet(256, AT_256, 2, [3, 4, 5], **IMAGENET, **BLOCKS), guided(256)),
    "256x256_diffusion_uncond": (unet(256, AT_256, 2, [3, 4, 5], **BLOCKS), guided(256)),
    "512x512_diffusion": (unet(128, AT_512, 2, [4, 5, 6], **IMAGENET, **BLOCKS, time_channels=256), guided(512)),
    "64_256_upsampler": (
        unet(192, AT_256, 2, [3, 4, 5], **IMAGENET, **BLOCKS, concat_channels=True),
        guided(256, num_heads=4, small_size=64),
    ),
    "128_512_upsampler": (
        unet(192, AT_256, 2, [4, 5], **IMAGENET, **BLOCKS, concat_channels=True),
        guided(512, small_size=128),
    ),
    "64x64_classifier": (classifier(64, AT_64, 4), guided(64, "cosine")),
    "128x128_classifier": (classifier(128, AT_128, 2), guided(128)),
    "256x256_classifier": (classifier(256, AT_256, 2), guided(256)),
    "512x512_classifier": (classifier(512, AT_512, 2, base_channels=64, time_channels=128), guided(512)),
}
"""By the name of a file. Others have the shapes and the process of one of these: *_vlb_* those of the file without it,
lsun_uncond_100M_1200K_bs128 those of the other one, and lsun_bedroom, lsun_cat and lsun_horse those of
256x256_diffusion_uncond (but for a dropout of 0.1 in training).
"""


def published_name(architecture: Architecture) -> str | None:
    """The name of the published file of this architecture."""
    return next((name for name, (known, _) in PUBLISHED.items() if known == architecture), None)


def flags_of(architecture: Architecture, path: Path) -> Flags:
    """The published flags, updated by the file beside the weights `path`, if there is one. Raises ValueError."""
    name, flags_file = published_name(architecture), path.with_suffix(".json")
    flags = asdict(PUBLISHED[name][1]) if name else {}
    if flags_file.exists():
        flags |= _read_flags(flags_file)
    missing = [field for field in NEEDED if field not in flags]
    if not any(flags.get(field) for field in HEADS):
        missing.append(" or ".join(HEADS))
    low_res, size = architecture.get("concat_channels"), architecture.get("size")
    if low_res and not flags.get("small_size"):
        missing.append("small_size")
    if flags.get("small_size") and not low_res:
        raise ValueError(f"{flags_file}: small_size has no effect, as {path.name} is not an upsampler; leave it out")
    if missing:
        raise ValueError(
            f"ckpt={path} does not have the shapes of a published model, so its flags are needed: "
            f"{flags_file.name} beside it must be a JSON object of the flags it was trained with, "
            f"{', '.join(missing)} among them; known "
            f"are {', '.join(KNOWN)}"
        )
    try:
        flags = Flags(**flags)
    except ValueError as error:
        raise ValueError(f"{flags_file if flags_file.exists() else path}: {error}") from None
    if size not in (None, flags.image_size):
        check.fail(f"{flags_file}: image_size", flags.image_size, f"{size}, as in the weights")
    return flags


def _read_flags(path: Path) -> dict[str, Any]:
    flags = json_file(path)
    if not isinstance(flags, dict):
        check.fail(str(path), type(flags).__name__, f"a JSON object of flags: {', '.join(KNOWN)}")
    for name in flags:
        if name not in KNOWN:
            raise ValueError(
                f"{path} has {name!r}, which is none of {', '.join(KNOWN)}{check.suggestion(name, KNOWN)}; leave out "
                "flags that follow from the weights or do not affect sampling"
            )
    if any(flags.get(name) is not None for name in HEADS):
        flags = {**dict.fromkeys(HEADS), **flags}  # one replaces the other
    return flags
