"""Files of CompVis' latent diffusion (Rombach et al. 2022), without that program.

github.com/CompVis/latent-diffusion. A .ckpt is a training of Lightning. Objects of other programs in it become inert.
Only weights are kept: of the first stage alone, or of the network, its averages, the first stage and the classes.
"""

import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.untrusted import json_file
from ddpm.interop import openai
from ddpm.interop.configuration import Config, leaf
from ddpm.interop.diffusers_text import TextPart, bert_part, clip_leaf
from ddpm.interop.published import FirstStage, LatentModel
from ddpm.interop.scheduler import Scheduler
from ddpm.interop.weights import Weights, name_errors, read_file, shape_of, shapes_of, state_dict_of, to_ours
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder
from ddpm.networks.class_token_unet import ClassTokenUNet
from ddpm.networks.semantic_unet import SemanticUNet
from ddpm.networks.unet import UNet

NETWORK, FIRST_STAGE, CLASSES = "model.diffusion_model.", "first_stage_model.", "cond_stage_model.embedding.weight"
CONDITION = "cond_stage_model."
LABELS = "cond_stage_model.channel_mapper.weight"
"""Of the 1x1 convolution of semantic maps."""
BERT, CLIP = "transformer.token_emb.weight", "transformer.text_model.embeddings.token_embedding.weight"
"""Of the text encoders of Rombach et al. 2022 and of Stable Diffusion 1."""


@dataclass(frozen=True)
class Unstated:
    """What weights do not say. size: side of a latent. null_embedding: the last class is none. scale: of latents, where
    the file does not state it. Exactly one of num_heads and head_channels is set."""

    size: check.PositiveInt
    num_heads: check.PositiveInt | None = None
    head_channels: check.PositiveInt | None = None
    null_embedding: bool = False
    scale: check.PositiveNumber | None = None

    def __post_init__(self) -> None:
        check.fields(self)
        heads = {name: value for name in ("num_heads", "head_channels") if (value := getattr(self, name)) is not None}
        if len(heads) != 1:
            check.fail("num_heads and head_channels", heads, "one or the other")


PUBLISHED = {
    (224, (1, 2, 3, 4), None): Unstated(64, head_channels=32),  # CelebA-HQ, FFHQ, LSUN bedrooms
    (192, (1, 2, 2, 4, 4), None): Unstated(32, num_heads=8),  # LSUN churches
    (256, (1, 2, 3, 4), None): Unstated(64, num_heads=8),  # inpainting
    (160, (1, 2, 2, 4), None): Unstated(64, head_channels=32),  # super-resolution
    (128, (1, 4, 8), None): Unstated(64, num_heads=8),  # semantic maps
    (256, (1, 2, 4), 512): Unstated(32, head_channels=32),  # cin256
    (192, (1, 2, 3, 5), 512): Unstated(64, num_heads=1, null_embedding=True),  # cin256-v2
    (320, (1, 2, 4, 4), 1280): Unstated(32, num_heads=8, scale=0.18215),  # txt2img-1p4B
    (192, (1, 2, 3, 5), 640): Unstated(64, head_channels=32),  # text2img256
    (320, (1, 2, 4, 4), 768): Unstated(64, num_heads=8, scale=0.18215),  # Stable Diffusion 1
}
"""By base_channels, channel_mults and token_channels."""


def load_compvis(path: Path) -> LatentModel:
    weights = weights_in(path)
    with name_errors(path):
        network, averages = part(weights, NETWORK), part(weights, "model_ema.")
        network = {key: averages.get(f"diffusion_model{key.replace('.', '')}", value) for key, value in network.items()}
        settings = {**openai.architecture_of(network), **transformer_settings(network), **concatenated(network)}
        text = text_in(part(weights, CONDITION)) if settings["token_channels"] and CLASSES not in weights else None
    known = unstated(settings, path)
    with name_errors(path):
        stage = first_stage(part(weights, FIRST_STAGE), scale_in(weights) or known.scale)
        heads = {name: value for name in ("num_heads", "head_channels") if (value := getattr(known, name))}
        settings |= {"dropout": 0.0, "num_groups": 32, "convention": "adm", **heads}
        ours = unet_weights(network, settings)
        builder, scheduler, size = UNet, scheduler_in(weights), [known.size] * 2
        if CLASSES in weights:
            builder, rows = ClassTokenUNet, shape_of(weights, CLASSES, 2)[0]
            settings |= {"num_classes": rows - known.null_embedding, "null_embedding": known.null_embedding}
            ours = {**{f"unet.{key}": value for key, value in ours.items()}, "classes.weight": weights[CLASSES].float()}
        beside = condition_beside(settings, weights, stage)
        if LABELS in weights:
            builder, maps = SemanticUNet, weights[LABELS].float()
            settings = {name: value for name, value in settings.items() if name != "concat_channels"}
            settings |= {"label_channels": len(maps), "num_labels": maps.shape[1]}
            ours = {**{f"unet.{key}": value for key, value in ours.items()}, "labels.weight": maps}
        return LatentModel(builder, settings, ours, stage, scheduler, size, text, beside)


def concatenated(network: Weights) -> dict[str, Any]:
    """The channels of x, which are those of the output, and those that are concatenated to it."""
    num = shape_of(network, "out.2.weight", 4)[0]
    more = shape_of(network, "input_blocks.0.0.weight", 4)[1] - num
    if more < 0:
        raise ValueError(f"its network takes {num + more} channels, less than the {num} of its output")
    return {"in_channels": num, "concat_channels": more == num or more or False}


def condition_beside(settings: dict[str, Any], weights: Weights, stage: FirstStage) -> Config | None:
    """The condition that is concatenated to x: a map of labels, a masked image and its mask, or a small image."""
    channels = settings["in_channels"]
    more = channels if settings["concat_channels"] is True else int(settings["concat_channels"])
    if LABELS in weights:
        out_channels, num_labels, *_ = shape_of(weights, LABELS, 4)
        if out_channels != more:
            raise ValueError(f"{LABELS} makes {out_channels} channels, but its network takes {more} beside x")
        return leaf("diffusion.conditions.semantic.Semantic", num_labels=num_labels, dropout=0.0)
    if not more:
        return None
    if more == channels + 1:
        return leaf("diffusion.conditions.masked.Masked", channels=channels, seed=0, dropout=0.0)
    if more == stage.settings["in_channels"]:
        return leaf("diffusion.conditions.low_resolution.LowResolution", factor=stage.factor, dropout=0.0)
    raise ValueError(f"its network takes {more} channels beside x, which are of no condition that is known")


def text_in(weights: Weights) -> TextPart:
    """The text encoder. That of Stable Diffusion 1 is CLIP's as published, and is not read out of the file."""
    if CLIP in weights:
        return TextPart(clip_leaf("openai/clip-vit-large-patch14", None), None)
    if BERT not in weights:
        raise ValueError(f"its network takes tokens, but it has neither {CLASSES} nor a text encoder that is known")
    inner = shape_of(weights, "transformer.attn_layers.layers.0.1.to_q.weight", 2)[0]
    num_words, channels = shape_of(weights, BERT, 2)
    settings = {
        "num_tokens": shape_of(weights, "transformer.pos_emb.emb.weight", 2)[0],
        "token_channels": channels,
        "depth": sum(key.endswith(".1.to_q.weight") for key in weights),
        "num_heads": inner // 64,
        "head_channels": 64,  # as all published ones have
        "num_words": num_words,
    }
    return bert_part("google-bert/bert-base-uncased", settings, weights, 0)


def load_first_stage(path: Path) -> FirstStage:
    """path: of a first stage, or of a file that has one."""
    weights = weights_in(path)
    with name_errors(path):
        return first_stage(part(weights, FIRST_STAGE) or weights, scale_in(weights))


def weights_in(path: Path) -> Weights:
    stored = read_file(path, inert=None)
    stored = stored.get("state_dict", stored) if isinstance(stored, dict) else stored
    if isinstance(stored, dict):
        stored = {key: value for key, value in stored.items() if not is_dropped(key, value)}
    return state_dict_of(stored, path)


def is_dropped(key: Any, value: Any) -> bool:
    """Whether it is a weight of a loss, or an integer such as a number of steps."""
    is_of_loss = isinstance(key, str) and key.startswith(("loss.", f"{FIRST_STAGE}loss."))
    return is_of_loss or (isinstance(value, Tensor) and not value.is_floating_point())


def part(weights: Weights, prefix: str) -> Weights:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


# The first stage


def first_stage(weights: Weights, scale: float | None) -> FirstStage:
    levels = [int(match[1]) for key in weights if (match := re.match(r"encoder\.down\.(\d{1,2})\.", key))]
    firsts = [f"encoder.down.{i}.block.0.conv1.weight" for i in range(max(levels, default=0) + 1)]
    widths = [shape_of(weights, key, 4)[0] for key in firsts]
    base, in_channels, *_ = shape_of(weights, "encoder.conv_in.weight", 4)
    if any(width % base for width in widths):
        raise ValueError(f"its levels have {widths} channels, but only multiples of the first are supported")
    settings: dict[str, Any] = {
        "in_channels": in_channels,
        "base_channels": base,
        "channel_mults": [width // base for width in widths],
        "num_res_blocks": sum(bool(re.fullmatch(r"encoder\.down\.0\.block\.\d+\.conv1\.weight", k)) for k in weights),
        "attention_levels": [i for i in range(len(widths)) if f"encoder.down.{i}.attn.0.norm.weight" in weights],
        "middle_attention": "encoder.mid.attn_1.norm.weight" in weights,
        "z_channels": shape_of(weights, "post_quant_conv.weight", 4)[0],
        "num_groups": 32,
    }
    builder: type[KLAutoencoder] | type[VQAutoencoder] = KLAutoencoder
    if "quantize.embedding.weight" in weights:
        builder, scale = VQAutoencoder, scale or 1.0
        settings["num_codes"] = shape_of(weights, "quantize.embedding.weight", 2)[0]
    ours = to_ours(weights, shapes_of(builder, settings), lambda key: stage_keys(key, len(widths)))
    return FirstStage(builder, settings, ours, scale, [256, 256])


STAGE_NAMES = [
    (r"^(encoder|decoder)\.stem\.", r"\1.conv_in."),
    (r"^(encoder|decoder)\.(norm|out)\.", r"\1.\2_out."),
    (r"\.out_out\.", ".conv_out."),
    (r"^to_moments\.", "quant_conv."),
    (r"^from_z\.", "post_quant_conv."),
    (r"^codebook\.", "quantize.embedding."),
    (r"\.middle\.0\.res\.", ".mid.block_1."),
    (r"\.middle\.0\.attention\.", ".mid.attn_1."),
    (r"\.middle\.1\.res\.", ".mid.block_2."),
    (r"\.blocks\.(\d+)\.res\.", r".block.\1."),
    (r"\.blocks\.(\d+)\.attention\.", r".attn.\1."),
    (r"\.(down|up)\.(\d+)\.resample\.", r".\1.\2.\1sample."),
    (r"\.shortcut\.", ".nin_shortcut."),
    (r"(\.attn(?:_1|\.\d+))\.out\.", r"\1.proj_out."),
]


def stage_keys(key: str, num_levels: int) -> list[str]:
    """Their keys that are concatenated for one of ours. Their levels going up are numbered from the finest."""
    for pattern, theirs in STAGE_NAMES:
        key = re.sub(pattern, theirs, key)
    key = re.sub(r"\.up\.(\d+)\.", lambda match: f".up.{num_levels - 1 - int(match[1])}.", key)
    return [key.replace(".qkv.", f".{name}.") for name in "qkv"] if ".qkv." in key else [key]


# The network


def transformer_settings(network: Weights) -> dict[str, Any]:
    layers = {match[1] for key in network if (match := re.search(r"\.transformer_blocks\.(\d{1,2})\.", key))}
    keys = [key for key in network if key.endswith(".attn2.to_k.weight")]
    return {
        "transformer_depth": len(layers) or None,
        "token_channels": shape_of(network, keys[0], 2)[1] if keys else None,
    }


def unet_weights(network: Weights, settings: dict[str, Any]) -> Weights:
    def by_kind(key: str, weight: Tensor) -> Tensor:
        if ".attention.qkv." not in key:
            return weight
        width = len(weight) // 3
        return openai.rows_by_kind(weight, width // (settings.get("head_channels") or width // settings["num_heads"]))

    wanted = shapes_of(UNet, settings)
    return to_ours(network, wanted, lambda key: [openai.their_key(key, settings)], by_kind)


def unstated(settings: dict[str, Any], path: Path) -> Unstated:
    """Of a published model, or of the file beside the weights `path`."""
    beside, names = path.with_suffix(".json"), [field.name for field in fields(Unstated)]
    if beside.exists():
        stated = json_file(beside)
        if not isinstance(stated, dict) or not stated.keys() <= {*names} or "size" not in stated:
            check.fail(str(beside), stated, f"a JSON object of {', '.join(names)}, with size")
        with name_errors(beside):
            return Unstated(**stated)
    shape = settings["base_channels"], tuple(settings["channel_mults"]), settings["token_channels"]
    if shape not in PUBLISHED:
        raise ValueError(
            f"ckpt={path} does not have the shapes of a published model, and weights do not say the number of heads "
            f"and the size of latents: {beside.name} beside it must be a JSON object of {', '.join(names)}"
        )
    return PUBLISHED[shape]


def scale_in(weights: Weights) -> float | None:
    if "scale_factor" not in weights:
        return None
    if weights["scale_factor"].numel() != 1:
        raise ValueError(f"scale_factor has shape {[*weights['scale_factor'].shape]}, and one number is needed")
    return check.positive_number("scale_factor", weights["scale_factor"].item())


def scheduler_in(weights: Weights) -> Scheduler:
    """The schedule of their betas, `[T]`, whose square roots are evenly spaced."""
    (num_timesteps,) = shape_of(weights, "betas", 1)
    betas = weights["betas"].double()
    start, end = (check.positive_number("betas", float(f"{beta:.5g}")) for beta in (betas[0], betas[-1]))  # of float32
    known = torch.linspace(start**0.5, end**0.5, num_timesteps, dtype=torch.float64) ** 2
    if not torch.allclose(betas, known, rtol=1e-4, atol=0):
        raise ValueError("its betas are of another schedule than those whose square roots are evenly spaced")
    return Scheduler(num_timesteps, "scaled_linear", start, end, clip_sample=False)
