"""Small networks of latent diffusion in diffusers, with random weights, and the folders of their pipelines."""

import json

import torch
from diffusers import DDIMScheduler, UNet2DConditionModel, VQModel
from networks import awake

TIMES = torch.tensor([0, 17, 999])
ADM = {"norm_eps": 1e-5, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1, "sample_size": 16}


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def arguments(channels, mults, levels, kind="Attn", plain="{}Block2D", **others):
    kinds = [f"{kind}{{}}Block2D" if level in levels else plain for level in range(len(mults))]
    blocks = {"down_block_types": [each.format("Down") for each in kinds]}
    blocks |= {"up_block_types": [each.format("Up") for each in reversed(kinds)]}
    widths = [32 * mult for mult in mults]
    return {**ADM, "in_channels": channels, "out_channels": channels, "block_out_channels": widths, **blocks, **others}


def stage_of(kind, channels, mults=(1, 2), **others):
    shape = {"in_channels": 3, "out_channels": 3, "latent_channels": channels, "layers_per_block": 2}
    names = {
        "down_block_types": ["DownEncoderBlock2D"] * len(mults),
        "up_block_types": ["UpDecoderBlock2D"] * len(mults),
    }
    codes = {"num_vq_embeddings": 11} if kind is VQModel else {}
    return awake(kind(**shape, block_out_channels=[32 * m for m in mults], **names, **codes, **others)).float().eval()


def conditional(mults, levels, heads, tokens=12, channels=4):
    shape = {"attention_head_dim": heads, "cross_attention_dim": tokens}
    return awake(UNet2DConditionModel(**arguments(channels, mults, levels, "CrossAttn", **shape))).float().eval()


def pipeline(folder, unet, stage, place, **scheduler):
    unet.save_pretrained(folder / "unet")
    stage.save_pretrained(folder / place)
    published = {"beta_schedule": "scaled_linear", "beta_start": 0.0015, "beta_end": 0.0195, "clip_sample": False}
    DDIMScheduler(**published | scheduler).save_pretrained(folder / "scheduler")
    index = {"_class_name": "LDMPipeline", "unet": ["diffusers", "UNet2DModel"], place: ["diffusers", "VQModel"]}
    (folder / "model_index.json").write_text(json.dumps(index))
    return folder


def rewrite(path, **changes):
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: v for name, v in (config | changes).items() if v != "left out"}))
