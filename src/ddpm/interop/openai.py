"""Read networks of OpenAI's improved-diffusion and guided-diffusion from their .pt files, without these programs.

A file is a state dict. Its keys and shapes determine the architecture; `openai_flags` provides the remaining flags.
Whatever our networks do not support raises ValueError.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from ddpm.base import check
from ddpm.interop.diffusers_names import in_transformer
from ddpm.interop.openai_flags import Architecture, Flags, flags_of
from ddpm.interop.weights import Weights, name_errors, read_file, shape_of, shapes_of, state_dict_of, to_ours
from ddpm.networks.classifier import Classifier
from ddpm.networks.unet import UNet


@dataclass(frozen=True)
class OpenAIModel:
    """settings: the arguments of the network. weights: its state dict, float32, on the CPU."""

    builder: type[UNet] | type[Classifier]
    settings: dict[str, Any]
    weights: Weights
    flags: Flags


def load_openai(path: str | Path) -> OpenAIModel:
    path = Path(path)
    return from_weights(state_dict_of(read_file(path), path), path)


def from_weights(weights: Weights, path: Path) -> OpenAIModel:
    """path: the file, for error messages and for the flags beside it. Allocates no memory for stated shapes."""
    with name_errors(path):
        architecture = architecture_of(weights)
    flags = flags_of(architecture, path)
    with name_errors(path):
        settings = network_settings(architecture, flags)
        builder = Classifier if "size" in settings else UNet
        wanted = shapes_of(builder, settings)

        def by_kind(key: str, weight: Tensor) -> Tensor:
            is_by_head = ".attention.qkv." in key and not flags.use_new_attention_order
            return rows_by_kind(weight, flags.num_heads_at(len(weight) // 3)) if is_by_head else weight

        renamed = to_ours(weights, wanted, lambda key: [their_key(key, settings)], by_kind)
        return OpenAIModel(builder, settings, renamed, flags)


# The architecture, as keys and shapes say it

PARTS = {
    **dict.fromkeys(("in_layers", "emb_layers", "out_layers", "skip_connection"), "res"),
    **dict.fromkeys(("norm", "qkv", "proj_in", "transformer_blocks", "proj_out"), "attention"),
    **{"op": "down", "conv": "up", "weight": "conv", "bias": "conv"},
}
"""Kind of a layer by a key within it. Blocks that change the resolution have the keys of `res`."""

Blocks = list[list[str]]


def architecture_of(weights: Weights) -> Architecture:
    inputs, outputs = (_blocks(weights, name) for name in ("input_blocks", "output_blocks"))
    if not inputs or "time_embed.0.weight" not in weights:
        lacking = "time_embed.0.weight" if inputs else "input_blocks.0.0.weight"
        raise ValueError(f"it lacks {lacking}, so these are not weights of improved-diffusion or guided-diffusion")
    period = _period(inputs, outputs)
    if period < 2 or len(inputs) % period or len(outputs) not in (0, len(inputs)):
        raise ValueError(f"it has {len(inputs)} input_blocks and {len(outputs)} output_blocks, which do not fit")

    time_channels = shape_of(weights, "time_embed.0.weight", 2)[1]
    stem = shape_of(weights, "input_blocks.0.0.weight", 4)
    firsts = range(1, len(inputs), period)
    widths = [shape_of(weights, f"input_blocks.{first}.0.in_layers.2.weight", 4)[0] for first in firsts]
    if any(width % stem[0] for width in widths):
        raise ValueError(f"its levels have {widths} channels, but only multiples of the first are supported")
    resample = "conv" if any("down" in block for block in inputs) else "block"
    settings = {
        "time_channels": None if time_channels == stem[0] else time_channels,
        "base_channels": stem[0],
        "channel_mults": [width // stem[0] for width in widths],
        "num_res_blocks": period - 1,
        "attention_levels": [level for level, first in enumerate(firsts) if "attention" in inputs[first]],
        "scale_shift": shape_of(weights, "input_blocks.1.0.emb_layers.1.weight", 2)[0] == 2 * widths[0],
        "resample": resample if len(widths) > 1 else "conv",
    }
    if not outputs:
        return {**settings, "in_channels": stem[1], **_of_classifier(weights, len(widths))}
    low_res = stem[1] == 6  # 3 channels of the image and 3 of the low-resolution image
    return {
        **settings,
        "in_channels": 3 if low_res else stem[1],
        "out_channels": shape_of(weights, "out.2.weight", 4)[0],
        "num_classes": shape_of(weights, "label_emb.weight", 2)[0] if "label_emb.weight" in weights else None,
        "concat_channels": low_res,
    }


def _of_classifier(weights: Weights, num_levels: int) -> dict[str, Any]:
    if PLACES not in weights:
        raise ValueError(f"it lacks {PLACES}: only classifier_pool=attention is supported")
    num_pixels = shape_of(weights, PLACES, 2)[1] - 1  # of the last level; the first position is that of the mean
    side = round(num_pixels**0.5)
    if not num_pixels or side**2 != num_pixels:
        raise ValueError(f"{PLACES} has {num_pixels + 1} positions, which is not a square plus 1")
    return {"num_classes": shape_of(weights, "out.2.c_proj.weight", 3)[0], "size": side * 2 ** (num_levels - 1)}


def _blocks(weights: Weights, name: str) -> Blocks:
    """The layers of each block, for example ["res", "attention"]."""
    found: dict[tuple[int, int], str] = {}
    for key in weights:
        if match := re.fullmatch(rf"{name}\.(\d{{1,3}})\.(\d)\.(\w+)(\.[\w.]+)?", key):
            part = match[3]
            if part not in PARTS:
                raise ValueError(f"it has {key}, which is not supported")
            found[int(match[1]), int(match[2])] = PARTS[part]
    blocks: Blocks = [[] for _ in range(1 + max((block for block, _ in found), default=-1))]
    for (block, _), kind in sorted(found.items()):
        blocks[block].append(kind)
    if empty := [block for block, layers in enumerate(blocks) if not layers]:
        raise ValueError(f"it lacks {name}.{empty[0]}")
    return blocks


def _period(inputs: Blocks, outputs: Blocks) -> int:
    """Number of input blocks per level, including the downsampling: num_res_blocks + 1."""
    if outputs:  # the last block of a level has an upsampling behind its attention
        ends = (n for n, layers in enumerate(outputs, 1) if [k for k in layers if k != "attention"][1:])
        return next(ends, len(outputs))
    if any("down" in layers for layers in inputs):
        return next(n for n, layers in enumerate(inputs) if "down" in layers)
    periods = [n for n in range(2, len(inputs) + 1) if len(inputs) % n == 0 and _fits(inputs, n)]
    if len(periods) != 1:
        raise ValueError(f"its {len(inputs)} input_blocks do not show where the resolution changes")
    return periods[0]


def _fits(inputs: Blocks, period: int) -> bool:
    """Whether all blocks of a level are equal, except the last, which downsamples and has no attention."""
    levels = [inputs[first : first + period] for first in range(1, len(inputs), period)]
    alike = all(layers == level[0] for level in levels for layers in level[: period - 1])
    return alike and all(level[-1] == ["res"] for level in levels[:-1])


def network_settings(architecture: Architecture, flags: Flags) -> dict[str, Any]:
    """The arguments of our `UNet` or `Classifier`."""
    base, mults = architecture["base_channels"], architecture["channel_mults"]
    if flags.image_size % 2 ** (len(mults) - 1):
        check.fail("image_size", flags.image_size, f"a multiple of {2 ** (len(mults) - 1)}, for its levels")
    for width in {base * mults[level] for level in (*architecture["attention_levels"], -1)}:
        flags.num_heads_at(width)
    return {
        **architecture,
        "dropout": flags.dropout,
        "num_groups": 32,
        "convention": "adm",
        "num_timesteps": flags.diffusion_steps if flags.rescale_timesteps else None,
        "head_channels": flags.num_head_channels,
        **({"num_heads": flags.num_heads} if flags.num_heads else {}),
    }


# Weights. Each of our keys corresponds to one key of the file.

OF_RES = {
    **{"norm1": "in_layers.0", "conv1": "in_layers.2", "time": "emb_layers.1"},
    **{"norm2": "out_layers.0", "conv2": "out_layers.3", "shortcut": "skip_connection"},
}
OF_ATTENTION = {"norm": "norm", "qkv": "qkv", "out": "proj_out"}
OF_TOP = {
    **{"time.linear1": "time_embed.0", "time.linear2": "time_embed.2", "label": "label_emb"},
    **{"stem": "input_blocks.0.0", "norm": "out.0", "out": "out.2"},
    **{"pool.qkv": "out.2.qkv_proj", "pool.out": "out.2.c_proj"},
}
PLACES = "out.2.positional_embedding"


def their_key(key: str, settings: dict[str, Any]) -> str:
    """The key in the file for one of our keys."""
    period = settings["num_res_blocks"] + 1  # blocks per level in the file, see `_period`
    if key == "pool.places":
        return PLACES
    module, _, kind = key.rpartition(".")
    if module in OF_TOP:
        return f"{OF_TOP[module]}.{kind}"
    way, number, *rest = module.split(".")
    level = int(number)
    if way == "middle":
        place = f"middle_block.{2 * level if rest[0] == 'res' else 1}"
        return f"{place}.{_within(rest)}.{kind}"
    if rest[0] == "blocks":
        block, layer = level * period + int(rest[1]), int(rest[2] != "res")
        place = f"output_blocks.{block}" if way == "up" else f"input_blocks.{block + 1}"
        return f"{place}.{layer}.{_within(rest[2:])}.{kind}"
    if way == "down":
        return f"input_blocks.{(level + 1) * period}.0.{_within(rest, 'op')}.{kind}"
    attends = len(settings["channel_mults"]) - 1 - level in settings["attention_levels"]
    return f"output_blocks.{(level + 1) * period - 1}.{1 + attends}.{_within(rest, 'conv')}.{kind}"


def _within(names: list[str], conv: str = "") -> str:
    """The key within a layer of the file. names: ours, as ["res", "norm1"]. conv: name of a resampling convolution."""
    if names[-1] == "conv":
        return conv
    if names[0] == "transformer":
        return in_transformer(".".join(names[1:]))
    return (OF_ATTENTION if names[0] == "attention" else OF_RES)[names[-1]]


def rows_by_kind(weight: Tensor, num_heads: int) -> Tensor:
    """Rows sorted by (head, query or key or value, channel) as ours: (query or key or value, head, channel)."""
    return weight.unflatten(0, (num_heads, 3, -1)).transpose(0, 1).flatten(0, 2)
