"""Read and write the folders of diffusers' `AutoencoderKL` and `VQModel`, without diffusers."""

import json
from pathlib import Path
from typing import Any

from ddpm.base import check
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
from ddpm.interop.published import FirstStage
from ddpm.interop.recognise import STAGE_FOLDERS
from ddpm.interop.weights import name_errors, save_tensors, shapes_of, to_ours
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder

BLOCKS = "DownEncoderBlock2D", "AttnDownEncoderBlock2D"
SHARED: Config = {
    **{"in_channels": 3, "out_channels": 3, "block_out_channels": [64], "layers_per_block": 1, "sample_size": 32},
    **{"down_block_types": ["DownEncoderBlock2D"], "up_block_types": ["UpDecoderBlock2D"], "act_fn": "silu"},
    **{"norm_num_groups": 32, "scaling_factor": 0.18215, "mid_block_add_attention": True},
}
DEFAULTS: dict[str, Config] = {
    "AutoencoderKL": {
        **{**SHARED, "latent_channels": 4, "force_upcast": True, "use_quant_conv": True, "use_post_quant_conv": True},
        **dict.fromkeys(("shift_factor", "latents_mean", "latents_std")),
    },
    "VQModel": {
        **{**SHARED, "latent_channels": 3, "force_upcast": False, "num_vq_embeddings": 256, "vq_embed_dim": None},
        **{"norm_type": "group", "lookup_from_codebook": False},
    },
}
"""What diffusers takes for a field that a config leaves out."""
OURS: Config = {
    **{"act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True, "norm_type": "group"},
    **{"shift_factor": None, "latents_mean": None, "latents_std": None, "lookup_from_codebook": False},
}


def load_first_stage(folder: Path) -> FirstStage:
    """folder: of a first stage, or of a pipeline that has one."""
    folder = next((folder / name for name in STAGE_FOLDERS if (folder / name).is_dir()), folder)
    config = read_config(folder / "config.json")
    settings, scale, size = first_stage_settings(config), scale_of(config), sides(config)
    builder = VQAutoencoder if "num_codes" in settings else KLAutoencoder
    with name_errors(folder):
        weights = to_ours(read_weights(folder), shapes_of(builder, settings), their_keys)
    return FirstStage(builder, settings, weights, scale, size)


def first_stage_settings(config: Config) -> dict[str, Any]:
    """The arguments of our `KLAutoencoder` or, with num_codes, `VQAutoencoder`."""
    kind = check.one_of("_class_name", config.get("_class_name"), DEFAULTS)
    config = followed(config, DEFAULTS[kind], OURS)
    if config["out_channels"] != config["in_channels"]:
        refuse("out_channels", config["out_channels"], f"our first stages have in_channels, {config['in_channels']}")
    if config.get("vq_embed_dim") not in (None, config["latent_channels"]):
        refuse("vq_embed_dim", config["vq_embed_dim"], "our codes have latent_channels numbers")
    settings = {
        "in_channels": config["in_channels"],
        **levels(config, *BLOCKS),
        "z_channels": config["latent_channels"],
        "middle_attention": config["mid_block_add_attention"],
    }
    return settings if kind == "AutoencoderKL" else {**settings, "num_codes": config["num_vq_embeddings"]}


def scale_of(config: Config) -> float:
    """Published models of codes are not scaled. diffusers takes 0.18215 where their config states nothing."""
    default = 1.0 if config.get("_class_name") == "VQModel" else DEFAULTS["AutoencoderKL"]["scaling_factor"]
    return check.positive_number("scaling_factor", config.get("scaling_factor", default))


def save_first_stage(network: KLAutoencoder | VQAutoencoder, folder: Path, scale: float, size: int | list[int]) -> None:
    """Write a folder that `from_pretrained` of diffusers opens. scale: of the latents. size: of the images."""
    config = first_stage_config(network) | {"scaling_factor": scale, "sample_size": size}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    save_tensors(to_theirs(network.state_dict()), folder / f"{WEIGHTS}.safetensors")


def first_stage_config(network: KLAutoencoder | VQAutoencoder) -> Config:
    s = network.settings
    plain = {"patch_size": 1, "num_heads": 1, "head_channels": None, "convention": "ddpm", "resample": "conv"}
    for name, value in {**plain, "transformer_depth": None, "learn_log_scale": False}.items():
        if s.get(name, value) != value:
            check.fail(name, s[name], f"{value} to save for diffusers")
    codes = "num_codes" in s
    kind = "VQModel" if codes else "AutoencoderKL"
    return {
        "_class_name": kind,
        **DEFAULTS[kind],
        **{"in_channels": s["in_channels"], "out_channels": s["in_channels"], "latent_channels": s["z_channels"]},
        "block_out_channels": [s["base_channels"] * mult for mult in s["channel_mults"]],
        "layers_per_block": s["num_res_blocks"],
        **block_types(len(s["channel_mults"]), s["attention_levels"], *BLOCKS),
        "norm_num_groups": s["num_groups"],
        "mid_block_add_attention": s["middle_attention"],
        **({"num_vq_embeddings": s["num_codes"]} if codes else {}),
    }
