"""First stages and models of latents of other programs, and the configurations from which they are built."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from ddpm.checkpoint.stored_config import FITTED
from ddpm.interop.configuration import Config, all_groups, class_label, leaf, objective_of, sampling_parts, schedule
from ddpm.interop.diffusers_text import TextPart
from ddpm.interop.scheduler import Scheduler
from ddpm.interop.weights import Weights
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder
from ddpm.networks.class_token_unet import ClassTokenUNet
from ddpm.networks.semantic_unet import SemanticUNet
from ddpm.networks.text_unet import TextUNet
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
    text: the text encoder of a network with token_channels. beside: the condition that is concatenated to x."""

    builder: type[UNet] | type[ClassTokenUNet] | type[SemanticUNet]
    settings: dict[str, Any]
    weights: Weights
    first_stage: FirstStage
    scheduler: Scheduler
    size: list[int]
    text: TextPart | None = None
    beside: Config | None = None

    @property
    def network(self) -> tuple[Config, Weights]:
        """Its configuration and weights, with those of a text encoder that is a part of it."""
        if self.text is None or self.text.weights is None:
            return model_leaf(self.builder, self.settings), self.weights
        settings = {name: value for name, value in self.settings.items() if name != "token_channels"}
        parts = {"unet": self.weights, "encoder": self.text.weights}
        weights = {f"{part}.{key}": weight for part, found in parts.items() for key, weight in found.items()}
        return model_leaf(TextUNet, {**settings, "text": "${text}", "vocabulary": None}), weights


def model_leaf(builder: type[nn.Module], settings: dict[str, Any]) -> Config:
    return {"_target_": f"{builder.__module__}.{builder.__name__}", **settings}


def first_stage_configuration(stage: FirstStage) -> Config:
    """The scale is a fitted value, for codec.scale=published."""
    config = all_groups(model_leaf(stage.builder, stage.settings), stage.size, schedule(Scheduler()), "Eps")
    return {**config, FITTED: {"codec": {"scale": stage.scale}} if stage.scale else {}}


def latent_configuration(model: LatentModel, path: Path) -> Config:
    """The configuration for sampling, with all steps of the ancestral sampler. path: where its first stage is."""
    stage, objective = model.first_stage, objective_of(model.scheduler)
    if model.text is None and model.builder is UNet and model.settings.get("token_channels"):
        raise ValueError("its network takes a text, but there is no text encoder (text_encoder/ or bert/) beside it")
    if stage.scale is None:
        raise ValueError("it does not state the scale of its latents")
    config = all_groups(model.network[0], None, schedule(model.scheduler), objective)
    fields = {"first_stage": str(path), "weights": "best", "sample": True, "scale": stage.scale, "shift": False}
    size = [side * stage.factor for side in model.size]
    config["data"] |= {"channels": stage.settings["in_channels"], "size": size}
    config["codec"] = leaf("model.latent_codec.LatentCodec", _partial_=True, **fields)
    config |= sampling_parts(model.scheduler, model.settings)
    if model.text:  # the share of dropped captions is not published; any but 0 allows guidance
        config["text"] = model.text.text
        fields = {"text": "${text}", "dropout": 0.1, "negative": ""}
        config["cond"] = leaf("diffusion.conditions.caption_text.Caption", **fields)
    elif model.beside:
        config["cond"] = model.beside
    elif num_classes := model.settings.get("num_classes"):
        dropout = 0.1 if model.settings["null_embedding"] else 0.0  # for guidance; the share itself is not published
        config["cond"] = class_label(num_classes, dropout)
    return config
