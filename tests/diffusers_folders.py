"""Folders of pipelines of diffusers with random weights, and how they are opened here."""

import torch
from diffusers import DDPMScheduler, UNet2DModel
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from networks import awake

from ddpm.commands import export
from ddpm.config import load

IDS, STEPS = torch.arange(2), 12
SHAPE = {"sample_size": 8, "in_channels": 1, "block_out_channels": (8, 16), "norm_num_groups": 4}
SHAPE |= {"down_block_types": ("DownBlock2D", "AttnDownBlock2D"), "up_block_types": ("AttnUpBlock2D", "UpBlock2D")}


def folder_of(path, scheduler=DDPMScheduler, channels=1, network=(), **settings):
    """A pipeline's folder with random weights and this scheduler."""
    unet = awake(UNet2DModel(**SHAPE, out_channels=channels, **dict(network)).eval()).float()
    unet.save_pretrained(path / "unet")
    scheduler(STEPS, **settings).save_pretrained(path / "scheduler")
    return path


def opened(folder, *overrides):
    return load.from_checkpoint(folder, load.changes(configured("sample", f"ckpt={folder}", *overrides)))[0].double()


def configured(name, *overrides):
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(export.CONF), version_base="1.3"):
        return compose(name, overrides=list(overrides))
