"""Read and write the folders of diffusers' `UNet2DModel`, such as google/ddpm-cifar10-32, without diffusers.

A folder has config.json and diffusion_pytorch_model.safetensors, or .bin, which is read as data; a pipeline's folder
has these in unet/, and scheduler/scheduler_config.json. A setting that `UNet` does not support raises ValueError and is
never ignored.
"""

import json
import re
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch

from ddpm.base import check
from ddpm.base.untrusted import json_file
from ddpm.interop.weights import Weights, load_tensors, read_file, save_tensors, state_dict_of, to_ours
from ddpm.networks import UNet

Config = dict[str, Any]


@dataclass(frozen=True)
class Scheduler:
    """The scheduler of the training, with the names and defaults of diffusers' scheduler_config.json."""

    num_train_timesteps: int = 1000
    beta_schedule: str = "linear"
    beta_start: float = 1e-4
    beta_end: float = 0.02
    prediction_type: str = "epsilon"


@dataclass(frozen=True)
class DiffusersModel:
    """network: float32, on the CPU, in eval mode; its constructor's arguments are `network.settings`.
    scheduler: None if the folder has none. sample_size: height and width of the images, None if unknown."""

    network: UNet
    scheduler: Scheduler | None
    sample_size: list[int] | None


def load_diffusers(folder: str | Path) -> DiffusersModel:
    folder = Path(folder)
    unet = folder / "unet" if (folder / "unet").is_dir() else folder
    schedulers = [folder / "scheduler" / "scheduler_config.json", folder / "scheduler_config.json"]
    scheduler = next((scheduler_from(_read_config(path)) for path in schedulers if path.exists()), None)
    config = _read_config(unet / "config.json")
    settings = unet_settings(config)
    with torch.device("meta"):  # no memory for shapes that the file only states
        shapes = _built(settings).state_dict()
    found = _read_weights(unet)
    for old, new in OLD_NAMES.items():
        found = {key.replace(old, new): weight for key, weight in found.items()}
    renamed = to_ours(found, shapes, _their_keys)
    network = UNet(**settings)
    network.load_state_dict(renamed)
    size = config.get("sample_size")
    return DiffusersModel(network.eval(), scheduler, [size, size] if isinstance(size, int) else size)


def _built(settings: dict[str, Any]) -> UNet:
    try:
        return UNet(**settings)
    except (RuntimeError, TypeError) as error:  # raised by torch for impossible sizes
        reason = str(error).splitlines()[0]
        raise ValueError(f"cannot load a diffusers config whose network cannot be built: {reason}") from error


def save_network(network: UNet, folder: str | Path, sample_size: int | list[int] | None = None) -> None:
    """Write a folder that `UNet2DModel.from_pretrained` opens. sample_size: side or sides of the images."""
    config = config_from(network.settings) | {"sample_size": sample_size}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_tensors(_to_theirs(network.state_dict()), folder / f"{WEIGHTS}.safetensors")


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
)
OURS: Config = {
    **{field: value for field, value in DEFAULTS.items() if field not in FOLLOWED},
    **{"freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0, "norm_eps": 1e-6},
}
PLAIN: Config = {
    **{
        "scale_shift": False,
        "resample": "conv",
        "convention": "ddpm",
        "self_condition": False,
        "concat_channels": False,
    },
    **dict.fromkeys(("head_channels", "time_channels", "num_timesteps", "num_classes", "token_channels")),
    "transformer_depth": None,
}
"""Settings of our `UNet` that a UNet2DModel does not have, with the only values that can be exported."""


def unet_settings(config: Config) -> dict[str, Any]:
    """The arguments of our `UNet` for a UNet2DModel's config."""
    if config.get("_class_name", "UNet2DModel") != "UNet2DModel":
        _refuse("_class_name", config["_class_name"], "only UNet2DModel can be")
    _check_types(config)
    for field in config.keys() - DEFAULTS.keys():
        if not field.startswith("_") and config[field] is not None:
            _refuse(field, config[field], "a field that this version does not know")
    config = DEFAULTS | config
    if not config["block_out_channels"] or min(config["block_out_channels"]) < 1:
        _refuse("block_out_channels", config["block_out_channels"], "one width of at least 1 per level")
    for field, value in OURS.items():
        if config[field] != value:
            _refuse(field, config[field], f"our U-Net has {value!r}")

    widths, down = list(config["block_out_channels"]), list(config["down_block_types"])
    up = [kind.replace("Down", "Up") for kind in reversed(down)]
    if not {*down} <= {"DownBlock2D", "AttnDownBlock2D"} or len(down) != len(widths):
        _refuse("down_block_types", down, f"our U-Net has DownBlock2D or AttnDownBlock2D at {len(widths)} levels")
    if list(config["up_block_types"]) != up:
        _refuse("up_block_types", config["up_block_types"], f"our U-Net mirrors the way down: {up}")
    if any(width % widths[0] for width in widths):
        _refuse("block_out_channels", widths, "our widths are multiples of the first")

    attention_levels = [level for level, kind in enumerate(down) if kind.startswith("Attn")]
    num_heads = {
        width // (config["attention_head_dim"] or width) for width in _attention_levels(widths, attention_levels)
    }
    if len(num_heads) > 1:
        _refuse("attention_head_dim", config["attention_head_dim"], "our levels all have the same number of heads")
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "base_channels": widths[0],
        "channel_mults": [width // widths[0] for width in widths],
        "num_res_blocks": config["layers_per_block"],
        "attention_levels": attention_levels,
        "dropout": config["dropout"],
        "num_heads": num_heads.pop(),
        "num_groups": config["norm_num_groups"],
    }


def config_from(settings: dict[str, Any]) -> Config:
    """The config of the UNet2DModel that equals our `UNet` with these settings. Raises ValueError if there is none."""
    widths = [settings["base_channels"] * mult for mult in settings["channel_mults"]]
    attended = _attention_levels(widths, settings["attention_levels"])
    if settings["patch_size"] != 1:
        check.fail("patch_size", settings["patch_size"], "1 to save for diffusers, which works on single pixels")
    if settings["num_heads"] != 1 and len(attended) > 1:
        check.fail("num_heads", settings["num_heads"], "1 to save for diffusers, where wider levels get more heads")
    for name, plain in PLAIN.items():
        if settings[name] != plain:
            check.fail(name, settings[name], f"{plain} to save for diffusers")
    kinds = ["Attn" if level in settings["attention_levels"] else "" for level in range(len(widths))]
    return {
        "_class_name": "UNet2DModel",
        **OURS,
        "in_channels": settings["in_channels"],
        "out_channels": settings["out_channels"],
        "block_out_channels": widths,
        "layers_per_block": settings["num_res_blocks"],
        "down_block_types": [f"{kind}DownBlock2D" for kind in kinds],
        "up_block_types": [f"{kind}UpBlock2D" for kind in reversed(kinds)],
        "dropout": settings["dropout"],
        "attention_head_dim": None if settings["num_heads"] == 1 else attended.pop() // settings["num_heads"],
        "norm_num_groups": settings["num_groups"],
    }


def _attention_levels(widths: list[int], attention_levels: list[int]) -> set[int]:
    return {widths[level] for level in (*attention_levels, -1)}  # -1: the middle


def scheduler_from(config: Config) -> Scheduler:
    for field in ("beta_schedule", "prediction_type"):
        if not isinstance(config.get(field, ""), str):
            _refuse(field, config[field], "a word is needed")
    for field in ("trained_betas", "rescale_betas_zero_snr", "thresholding"):
        if config.get(field):
            _refuse(field, config[field], "not supported")
    return Scheduler(**{field.name: config[field.name] for field in fields(Scheduler) if field.name in config})


def _check_types(config: Config) -> None:
    """Raise ValueError for values of another type than diffusers writes."""
    for field in ("in_channels", "out_channels", "layers_per_block", "norm_num_groups"):
        if type(config.get(field, 1)) is not int:
            _refuse(field, config[field], "a number is needed")
    for field, kind in (("block_out_channels", int), ("down_block_types", str), ("up_block_types", str)):
        value = config.get(field, [])
        if not isinstance(value, list | tuple) or not all(type(each) is kind for each in value):
            _refuse(field, value, f"a list is needed, of {'numbers' if kind is int else 'names'}")
    if type(config.get("attention_head_dim")) not in (int, type(None)):
        _refuse("attention_head_dim", config["attention_head_dim"], "a number or null is needed")


def _refuse(field: str, value: Any, reason: str) -> None:
    raise ValueError(f"cannot load a diffusers config with {field} = {value!r}: {reason}")


# Weights. Each of our keys is one key of diffusers, except qkv, which is three.

WEIGHTS = "diffusion_pytorch_model"
TO_THEIRS = [
    (r"^stem\.", "conv_in."),
    (r"^norm\.", "conv_norm_out."),
    (r"^out\.", "conv_out."),
    (r"^time\.linear", "time_embedding.linear_"),
    (r"^(down|up)\.(\d+)\.", r"\1_blocks.\2."),
    (r"^middle\.(\d+)\.", r"mid_block.blocks.\1."),
    (r"\.blocks\.(\d+)\.res\.", r".resnets.\1."),
    (r"\.blocks\.(\d+)\.attention\.", r".attentions.\1."),
    (r"(down|up)_blocks\.(\d+)\.resample\.", r"\1_blocks.\2.\1samplers.0."),
    (r"\.time\.", ".time_emb_proj."),
    (r"\.shortcut\.", ".conv_shortcut."),
    (r"\.norm\.", ".group_norm."),
    (r"\.out\.", ".to_out.0."),
]
OLD_NAMES = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # in old files


def _their_keys(key: str) -> list[str]:
    for pattern, theirs in TO_THEIRS:
        key = re.sub(pattern, theirs, key)
    return [key.replace(".qkv.", f".to_{name}.") for name in "qkv"] if ".qkv." in key else [key]


def _to_theirs(weights: Weights) -> Weights:
    renamed: Weights = {}
    for key, weight in weights.items():
        keys = _their_keys(key)
        if ".attention." in key and weight.dim() == 4:
            weight = weight[:, :, 0, 0]  # linear maps in diffusers, 1x1 convolutions here
        renamed.update(zip(keys, weight.chunk(len(keys)), strict=True))
    return renamed


def _read_config(path: Path) -> Config:
    if not path.is_file():
        check.fail("folder", str(path.parent), f"a folder of diffusers' UNet2DModel, with {path.name}")
    config = json_file(path)
    if not isinstance(config, dict):
        check.fail(str(path), type(config).__name__, "a JSON object of settings")
    return config


def _read_weights(folder: Path) -> Weights:
    path = folder / f"{WEIGHTS}.safetensors"
    pickled = path.with_suffix(".bin")
    if not path.is_file() and pickled.exists():
        return state_dict_of(read_file(pickled), pickled)
    return load_tensors(path)
