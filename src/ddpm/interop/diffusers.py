"""Read and write the folders of diffusers' `UNet2DModel`, such as google/ddpm-cifar10-32, without diffusers.

A folder has config.json and diffusion_pytorch_model.safetensors, or .bin, which is read as data; a pipeline's folder
has these in unet/, and scheduler/scheduler_config.json. A setting that `UNet` does not support raises ValueError and is
never ignored.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ddpm.base import check
from ddpm.interop.diffusers_classes import read_class_arguments, with_null_class, without_null_class
from ddpm.interop.diffusers_files import (
    WEIGHTS,
    Config,
    block_types,
    followed,
    levels,
    read_config,
    read_weights,
    refuse,
    sides,
)
from ddpm.interop.diffusers_names import their_keys, to_theirs
from ddpm.interop.scheduler import Scheduler, scheduler_of
from ddpm.interop.weights import Weights, save_tensors, shapes_of, to_ours
from ddpm.networks import UNet
from ddpm.networks.conventions import CONVENTIONS as NETWORKS
from ddpm.networks.embeddings import TimeEmbedding


@dataclass(frozen=True)
class DiffusersModel:
    """network: float32, on the CPU, in eval mode; its constructor's arguments are `network.settings`.
    scheduler, sample_size (height and width): None if the folder has none. classes: see `read_class_arguments`."""

    network: UNet
    scheduler: Scheduler | None
    sample_size: list[int] | None
    classes: Config


def load_diffusers(folder: str | Path) -> DiffusersModel:
    folder = Path(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    config = read_config(unet / "config.json")
    settings = unet_settings(config)
    weights = read_weights(unet)
    if config.get("class_embed_type") == "timestep":
        weights = with_table(weights, settings)
    weights = without_null_class(weights, classes := read_class_arguments(folder))
    if classes.get("null_class") is not None:
        settings["num_classes"] -= 1
    renamed = to_ours(weights, shapes_of(UNet, settings), their_keys)
    network = UNet(**settings)
    network.load_state_dict(renamed)
    return DiffusersModel(network.eval(), scheduler_of(folder), sides(config), classes)


def with_table(weights: Weights, settings: dict[str, Any]) -> Weights:
    """Embeddings of the classes 0, 1, ... in a table, instead of the layers that embed numbers of classes as times."""
    prefix = "class_embedding."
    layers = {key.removeprefix(prefix).replace("_", ""): w for key, w in weights.items() if key.startswith(prefix)}
    channels = settings["base_channels"]
    embed = TimeEmbedding(channels, 4 * channels, waves=NETWORKS[settings["convention"]].waves)
    wanted = {name: weight.shape for name, weight in embed.state_dict().items()}
    if {name: weight.shape for name, weight in layers.items()} != wanted:
        raise ValueError("the weights of class_embedding are not those of class_embed_type = 'timestep'")
    embed.load_state_dict(layers)
    with torch.no_grad():
        table = embed(torch.arange(settings["num_classes"]))
    return {key: w for key, w in weights.items() if not key.startswith(prefix)} | {f"{prefix}weight": table}


def save_network(
    network: UNet,
    folder: str | Path,
    sample_size: int | list[int] | None = None,
    config_of: Callable[[dict[str, Any]], Config] | None = None,
    has_null_class: bool = False,
) -> None:
    """Write a folder that `UNet2DModel.from_pretrained` opens. sample_size: side or sides of the images.

    config_of: config.json of another class of diffusers, from the settings of the network. has_null_class: write no
    class, which adds nothing to the time embedding, as one more class.
    """
    config = (config_of or config_from)(network.settings) | {"sample_size": sample_size}
    weights = to_theirs(network.state_dict())
    if has_null_class:
        config["num_class_embeds"] += 1
        weights = with_null_class(weights)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_tensors(weights, folder / f"{WEIGHTS}.safetensors")


# Settings: the defaults of UNet2DModel, and the only values that our network supports.

DEFAULTS: Config = {
    "sample_size": None,
    "in_channels": 3,
    "out_channels": 3,
    "center_input_sample": False,
    "time_embedding_type": "positional",
    "time_embedding_dim": None,
    "freq_shift": 0,
    "flip_sin_to_cos": True,
    "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"],
    "mid_block_type": "UNetMidBlock2D",
    "up_block_types": ["AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
    "block_out_channels": [224, 448, 672, 896],
    "layers_per_block": 2,
    "mid_block_scale_factor": 1,
    "downsample_padding": 1,
    "downsample_type": "conv",
    "upsample_type": "conv",
    "dropout": 0.0,
    "act_fn": "silu",
    "attention_head_dim": 8,
    "norm_num_groups": 32,
    "attn_norm_num_groups": None,
    "norm_eps": 1e-5,
    "resnet_time_scale_shift": "default",
    "add_attention": True,
    "class_embed_type": None,
    "num_class_embeds": None,
    "num_train_timesteps": None,
}
FOLLOWED = (
    *("sample_size", "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels"),
    *("layers_per_block", "dropout", "attention_head_dim", "norm_num_groups", "num_train_timesteps"),
    *("class_embed_type", "num_class_embeds", "resnet_time_scale_shift"),
    "attn_norm_num_groups",
)
CONVENTIONS: dict[str, Config] = {
    "ddpm": {"freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6},
    "adm": {"freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1, "norm_eps": 1e-5},
}
"""The values that our conventions have. Other combinations are not supported."""
OURS: Config = {field: value for field, value in DEFAULTS.items() if field not in (*FOLLOWED, *CONVENTIONS["ddpm"])}
PLAIN: Config = {
    **{"patch_size": 1, "resample": "conv", "self_condition": False, "concat_channels": False},
    **dict.fromkeys(("time_channels", "num_timesteps", "token_channels")),
    "transformer_depth": None,
}
"""Settings of our `UNet` that a UNet2DModel does not have, with the only values that can be exported."""


def unet_settings(config: Config) -> dict[str, Any]:
    """The arguments of our `UNet` for a UNet2DModel's config."""
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        refuse("_class_name", config["_class_name"], "only UNet2DModel can be")
    config = followed(config, DEFAULTS, OURS)
    settings = levels(config, "DownBlock2D", "AttnDownBlock2D")
    usual = None if config["resnet_time_scale_shift"] == "scale_shift" else config["norm_num_groups"]
    groups = config["attn_norm_num_groups"] or usual  # of the attention in the middle; None: no norm
    if groups != config["norm_num_groups"]:
        refuse(
            "attn_norm_num_groups",
            groups,
            f"our attention has as many groups as other layers, {config['norm_num_groups']}",
        )
    widths, head = list(config["block_out_channels"]), config["attention_head_dim"]
    num_heads = {width // (head or width) for width in _attention_levels(widths, settings["attention_levels"])}
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        **settings,
        **shared_settings(config),
        **classes_of(config),
        **({"head_channels": head} if len(num_heads) > 1 else {"num_heads": num_heads.pop()}),
    }


def classes_of(config: Config) -> dict[str, Any]:
    """The argument of our `UNet` for its classes; none without classes."""
    kind, number = config["class_embed_type"], config["num_class_embeds"]
    if kind not in (None, "timestep"):
        refuse("class_embed_type", kind, "our network has a table of classes, which null and 'timestep' give")
    if kind and number is None:
        refuse("class_embed_type", kind, "add num_class_embeds, the number of classes, to config.json")
    return {} if number is None else {"num_classes": number}


def shared_settings(config: Config) -> dict[str, Any]:
    """The arguments of our `UNet` that are found in the same way in all U-Nets of diffusers."""
    time = config["resnet_time_scale_shift"]
    if time not in (shifts := {"default": False, "scale_shift": True}):
        refuse("resnet_time_scale_shift", time, f"our network has {' or '.join(map(repr, shifts))}")
    return {"dropout": config["dropout"], "scale_shift": shifts[time], "convention": convention_of(config)}


def convention_of(config: Config) -> str:
    """Which of ours has the details of the config."""
    found = next((name for name, known in CONVENTIONS.items() if known.items() <= config.items()), None)
    if found is None:
        near = max(CONVENTIONS.values(), key=lambda known: len(known.items() & config.items()))
        field = next(field for field, value in near.items() if config[field] != value)
        refuse(field, config[field], f"with the other settings of this config, our network has {near[field]!r}")
    return found


def config_from(settings: dict[str, Any]) -> Config:
    """The config of the UNet2DModel that equals our `UNet` with these settings. Raises ValueError if there is none."""
    widths = [settings["base_channels"] * mult for mult in settings["channel_mults"]]
    attended = _attention_levels(widths, settings["attention_levels"])
    check_plain(settings, PLAIN)
    if settings["num_heads"] != 1 and len(attended) > 1:
        check.fail("num_heads", settings["num_heads"], "1 to save for diffusers, where wider levels get more heads")
    head = settings["head_channels"] or (attended.pop() // settings["num_heads"] if settings["num_heads"] > 1 else None)
    return {
        "_class_name": "UNet2DModel",
        **OURS,
        **shared_config(settings, "DownBlock2D", "AttnDownBlock2D"),
        "attention_head_dim": head,
        "attn_norm_num_groups": settings["num_groups"] if settings["scale_shift"] else None,  # else it has no norm
        "num_class_embeds": settings["num_classes"],
    }


def check_plain(settings: dict[str, Any], plain: Config) -> None:
    """Raise ValueError for a setting with another value than the only one that can be exported."""
    for name, value in plain.items():
        if settings[name] != value:
            raise ValueError(
                f"{name} must be {value} to save for diffusers, got {settings[name]!r}: its networks have no such "
                "layers; format=safetensors exports this model"
            )


def shared_config(settings: dict[str, Any], plain: str, attending: str) -> Config:
    """The fields that all U-Nets of diffusers have. plain, attending: names of blocks going down."""
    mults = settings["channel_mults"]
    return {
        **CONVENTIONS[settings["convention"]],
        "in_channels": settings["in_channels"],
        "out_channels": settings["out_channels"],
        "block_out_channels": [settings["base_channels"] * mult for mult in mults],
        "layers_per_block": settings["num_res_blocks"],
        **block_types(len(mults), settings["attention_levels"], plain, attending),
        "dropout": settings["dropout"],
        "resnet_time_scale_shift": "scale_shift" if settings["scale_shift"] else "default",
        "norm_num_groups": settings["num_groups"],
    }


def _attention_levels(widths: list[int], attention_levels: list[int]) -> set[int]:
    return {widths[level] for level in (*attention_levels, -1)}  # -1: the middle
