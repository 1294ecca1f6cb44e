"""First stages and models of latents of other programs, and the configurations from which they are built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ddpm.checkpoint.stored_config import FITTED
from ddpm.interop.configuration import Config, all_groups, leaf, objective_of, schedule
from ddpm.interop.diffusers import Scheduler
from ddpm.interop.weights import Weights
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder
from ddpm.networks.class_token_unet import ClassTokenUNet
from ddpm.networks.unet import UNet


@dataclass(frozen=True)
class FirstStage:
    """settings: the arguments of `builder`. weights: its state dict, float32, on the CPU. scale: of the latents; None:
    unknown. size: height and width of images."""

    builder: type[KLAutoencoder] | type[VQAutoencoder]
    settings: dict[str, Any]
    weights: Weights
    scale: float | None
    size: list[int]

    @property
    def factor(self) -> int:
        """Side of an image over that of its latent."""
        return 2 ** (len(self.settings["channel_mults"]) - 1)


@dataclass(frozen=True)
class LatentModel:
    """A network of latents with its first stage. scheduler: of the training. size: height and width of a latent.
    The condition of a network with token_channels is the caller's."""

    builder: type[UNet] | type[ClassTokenUNet]
    settings: dict[str, Any]
    weights: Weights
    first_stage: FirstStage
    scheduler: Scheduler
    size: list[int]


def model_leaf(builder: type[nn.Module], settings: dict[str, Any]) -> Config:
    return {"_target_": f"{builder.__module__}.{builder.__name__}", **settings}


def first_stage_configuration(stage: FirstStage) -> Config:
    """The scale is a fitted value, for codec.scale=published."""
    config = all_groups(model_leaf(stage.builder, stage.settings), stage.size, schedule(Scheduler()), "Eps")
    return {**config, FITTED: {"codec": {"scale": stage.scale}} if stage.scale else {}}


def latent_configuration(model: LatentModel, path: Path, condition: Config | None = None) -> Config:
    """The configuration for sampling, with all steps of the ancestral sampler. path: where its first stage is.
    condition: that of a network that takes tokens."""
    stage, objective = model.first_stage, objective_of(model.scheduler)
    if condition is None and model.builder is UNet and model.settings.get("token_channels"):
        raise ValueError("its network takes a text, but the encoder of texts is not loaded: ckpt= cannot use it")
    if stage.scale is None:
        raise ValueError("it does not state the scale of its latents")
    config = all_groups(model_leaf(model.builder, model.settings), None, schedule(model.scheduler), objective)
    fields = {"first_stage": str(path), "weights": "best", "sample": True, "scale": stage.scale, "shift": False}
    size = [side * stage.factor for side in model.size]
    config["data"] |= {"channels": stage.settings["in_channels"], "size": size}
    config["codec"] = leaf("model.latent_codec.LatentCodec", _partial_=True, **fields)
    config["clip"] = leaf("diffusion.denoiser.no_wrapper", _partial_=True)
    if condition:
        config["cond"] = condition
    elif num_classes := model.settings.get("num_classes"):
        dropout = 0.1 if model.settings["null_embedding"] else 0.0  # for guidance; the share itself is not published
        known = {"num_classes": num_classes, "dropout": dropout, "names": None}
        config["cond"] = leaf("diffusion.conditions.base.ClassLabel", **known)
    return config
