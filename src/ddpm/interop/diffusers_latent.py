"""Folders of latent diffusion pipelines of diffusers, without diffusers: unet/, vae/ or vqvae/, scheduler/.

A `UNet2DModel` has no condition (CompVis/ldm-celebahq-256). A `UNet2DConditionModel` takes tokens (Stable Diffusion 1).
"""

from pathlib import Path
from typing import Any

from ddpm.base import check
from ddpm.interop.diffusers import PLAIN, check_plain, shared_config, shared_settings, unet_settings
from ddpm.interop.diffusers_files import Config, followed, levels, read_config, read_weights, refuse, sides
from ddpm.interop.diffusers_first_stage import load_first_stage
from ddpm.interop.diffusers_names import their_keys
from ddpm.interop.diffusers_text import load_text
from ddpm.interop.published import LatentModel
from ddpm.interop.scheduler import scheduler_of
from ddpm.interop.weights import name_errors, shapes_of, to_ours
from ddpm.networks.unet import UNet

BLOCKS = "DownBlock2D", "CrossAttnDownBlock2D"
DEFAULTS: Config = {
    **{"in_channels": 4, "out_channels": 4, "block_out_channels": [320, 640, 1280, 1280], "layers_per_block": 2},
    **{"down_block_types": ["CrossAttnDownBlock2D"] * 3 + ["DownBlock2D"]},
    **{"up_block_types": ["UpBlock2D"] + ["CrossAttnUpBlock2D"] * 3, "mid_block_type": "UNetMidBlock2DCrossAttn"},
    **{"flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "norm_eps": 1e-5, "norm_num_groups": 32},
    **{"attention_head_dim": 8, "cross_attention_dim": 1280, "transformer_layers_per_block": 1, "dropout": 0.0},
    **{"mid_block_scale_factor": 1, "act_fn": "silu", "resnet_time_scale_shift": "default"},
    **{"resnet_out_scale_factor": 1.0, "time_embedding_type": "positional", "attention_type": "default"},
    **{"conv_in_kernel": 3, "conv_out_kernel": 3, "addition_embed_type_num_heads": 64},
    **dict.fromkeys(("center_input_sample", "only_cross_attention", "dual_cross_attention"), False),
    **dict.fromkeys(("use_linear_projection", "upcast_attention", "resnet_skip_time_act"), False),
    "class_embeddings_concat": False,
    "mid_block_only_cross_attention": None,
    **dict.fromkeys(("sample_size", "reverse_transformer_layers_per_block", "encoder_hid_dim", "encoder_hid_dim_type")),
    **dict.fromkeys(("num_attention_heads", "class_embed_type", "addition_embed_type", "addition_time_embed_dim")),
    **dict.fromkeys(("num_class_embeds", "time_embedding_dim", "time_embedding_act_fn", "timestep_post_act")),
    **dict.fromkeys(("time_cond_proj_dim", "projection_class_embeddings_input_dim", "cross_attention_norm")),
}
"""What diffusers takes for a field that the config of a UNet2DConditionModel leaves out."""
FOLLOWED = (
    *("in_channels", "out_channels", "block_out_channels", "layers_per_block", "down_block_types", "up_block_types"),
    *("flip_sin_to_cos", "freq_shift", "downsample_padding", "norm_eps", "norm_num_groups", "attention_head_dim"),
    *("cross_attention_dim", "transformer_layers_per_block", "dropout", "sample_size", "resnet_time_scale_shift"),
)


def load_latent(folder: Path) -> LatentModel:
    """A network that takes tokens comes with its text encoder."""
    stage, scheduler = load_first_stage(folder), scheduler_of(folder)
    if scheduler is None:
        raise ValueError(f"{folder} has no scheduler/scheduler_config.json, which states the noise of its training")
    config = read_config(folder / "unet" / "config.json")
    takes_tokens = config.get("_class_name") == "UNet2DConditionModel"
    settings = conditional_settings(config) if takes_tokens else unet_settings(config)
    size = sides(config)
    if size is None:
        raise ValueError(
            f"{folder / 'unet'} does not state the size of its latents: add sample_size to its config.json"
        )
    with name_errors(folder / "unet"):
        weights = to_ours(read_weights(folder / "unet"), shapes_of(UNet, settings), their_keys)
    return LatentModel(UNet, settings, weights, stage, scheduler, size, load_text(folder) if takes_tokens else None)


def conditional_settings(config: Config) -> dict[str, Any]:
    """The arguments of our `UNet` for the config of a UNet2DConditionModel."""
    heads = config.get("attention_head_dim", DEFAULTS["attention_head_dim"])  # numbers of heads, whatever the name says
    ours = {field: value for field, value in DEFAULTS.items() if field not in FOLLOWED}
    config = followed({**config, "attention_head_dim": None}, DEFAULTS, ours)
    settings = levels(config, *BLOCKS)
    widths = list(config["block_out_channels"])
    heads = [heads] * len(widths) if isinstance(heads, int) else heads
    if (
        not isinstance(heads, list)
        or len(heads) != len(widths)
        or not all(type(each) is int and each > 0 for each in heads)
    ):
        refuse("attention_head_dim", heads, "a number of heads is needed, or one for each level")
    used = {(heads[level], widths[level] // heads[level]) for level in (*settings["attention_levels"], -1)}
    num_heads, head_channels = ({pair[i] for pair in used} for i in (0, 1))
    if len(num_heads) > 1 and len(head_channels) > 1:
        refuse("attention_head_dim", heads, "our levels have the same number of heads, or of channels for each")
    return {
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        **settings,
        **shared_settings(config),
        "transformer_depth": config["transformer_layers_per_block"],
        "token_channels": config["cross_attention_dim"],
        **({"num_heads": num_heads.pop()} if len(num_heads) == 1 else {"head_channels": head_channels.pop()}),
    }


def conditional_config(settings: dict[str, Any]) -> Config:
    """The config of the UNet2DConditionModel that equals our `UNet` with these settings. ValueError without one."""
    own = ("token_channels", "transformer_depth")
    check_plain(settings, {name: value for name, value in PLAIN.items() if name not in own})
    if settings["transformer_depth"] is None:
        check.fail("transformer_depth", None, "at least 1 to save for diffusers")
    base, head, num_heads = (settings[each] for each in ("base_channels", "head_channels", "num_heads"))
    heads = [base * mult // head if head else num_heads for mult in settings["channel_mults"]]
    return {
        "_class_name": "UNet2DConditionModel",
        **DEFAULTS,
        **shared_config(settings, *BLOCKS),
        "attention_head_dim": heads,
        "cross_attention_dim": settings["token_channels"],
        "transformer_layers_per_block": settings["transformer_depth"],
    }
