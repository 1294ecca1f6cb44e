"""Build the data module, Lightning's module and the Trainer from a configuration."""

import re
from collections.abc import Sequence
from datetime import timedelta
from functools import partial
from typing import Any

import torch
import torch._functorch.config
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf
from torch import nn

from ddpm.base import check
from ddpm.checkpoint.stored_config import Fitted
from ddpm.checkpoint.writing import AtomicCheckpointIO
from ddpm.config.codec import refuse_latents
from ddpm.config.field_types import annotations, check_type
from ddpm.config.load import guide
from ddpm.config.model import NOTHING, build_adversary, build_loss, build_model, build_perceptual, refuse_idle_eps
from ddpm.config.wiring import complete, instantiate
from ddpm.data.datamodule import ImageDataModule
from ddpm.diffusion.conditions.base import ClassLabel, Condition
from ddpm.diffusion.conditions.semantic import Semantic
from ddpm.diffusion.losses.classification import Classification
from ddpm.model.codec import Codec
from ddpm.model.diffusion_model import no_samples
from ddpm.model.latent_codec import LatentCodec
from ddpm.runs import cluster, devices
from ddpm.runs.interruption import take_over
from ddpm.runs.peers import connect_with
from ddpm.runs.typed import wandb_labels
from ddpm.training import sharded_strategy
from ddpm.training.alternating import AlternatingModule
from ddpm.training.callbacks.latents import PrepareLatents
from ddpm.training.callbacks.time_limit import TimeLimit
from ddpm.training.module import DiffusionModule
from ddpm.training.turn import ADVERSARY, NETWORK, Turn, turns_of


def data(config: DictConfig, condition: Condition | None = None) -> ImageDataModule:
    """condition: of the model, whose batches get its captions."""
    named = {"name": str(config.data.name)} if config.data.get("name") is not None else {}  # plain text, see `TEXT`
    made = instantiate(OmegaConf.merge(config.data, dict.fromkeys(named)), "data", **named)
    made.of_texts = getattr(condition, "rows", None)
    return made


def preparations(codec: Codec) -> list[Callback]:
    """What has to be done on all processes before the first step of a training."""
    return [PrepareLatents(codec)] if isinstance(codec, LatentCodec) else []


OPTIMIZERS = {NETWORK: "optimizer", ADVERSARY: "adversary_optimizer"}
"""The groups of the configuration, by turn."""


def module(config: DictConfig, fitted: Fitted = NOTHING) -> DiffusionModule:
    """The model, its loss and its optimizer. fitted: see `ddpm.config.fitting`."""
    refuse_idle_eps(config.sampler, config)
    model = build_model(config, fitted, guide)
    refuse_latents(config, model.codec, model.condition)
    refuse_without_label_images(config, model.condition)
    adversary = build_adversary(config, fitted)
    loss = build_loss(config, model.sampler.process, adversary, build_perceptual(config))
    if getattr(loss, "counts_bits", False) and not model.codec.bounded:
        raise ValueError("this loss counts bits of 8-bit pixels, which latents have not: choose loss=simple")
    if isinstance(loss, Classification) and not isinstance(model.condition, ClassLabel):
        raise ValueError("loss=classification needs labels: choose cond=class")
    refuse_another_kind(config, model.network, adversary, loss)
    for part in (model.network, adversary):
        refuse_shape(part, model.latent_shape, model.image_shape)
    turns = build_turns(config, loss, {NETWORK: model.network, ADVERSARY: adversary})
    is_sharded = config.trainer.get("strategy") == "fsdp"
    if is_sharded and len(turns) > 1:
        raise ValueError("trainer.strategy=fsdp shards one network, and this loss trains several; choose ddp")
    if is_sharded and getattr(model.network, "reconstructs", False):
        raise ValueError("trainer.strategy=fsdp gathers weights for a whole network, not for its halves; choose ddp")
    if len(turns) == 1:
        return DiffusionModule(model, loss, turns, config.seed, config.compile)
    if config.compile:
        torch._functorch.config.donated_buffer = False  # a balanced term goes through the same graph once more
        if not loss.double_backward:
            adversary.compile()
    return AlternatingModule(model, loss, turns, config.seed, config.compile)


def refuse_without_label_images(config: DictConfig, condition: Condition) -> None:
    """Raise ValueError if label images are missing, or if nothing uses them."""
    given = config.data.get("label_images") is not None
    if isinstance(condition, Semantic) and not given:
        raise ValueError("cond=semantic needs label images: data.label_images=FOLDER")
    if given and not isinstance(condition, Semantic):
        raise ValueError("data.label_images has no effect without cond=semantic; leave it out")


def refuse_shape(network: nn.Module | None, shape: tuple[int, int, int], image_shape: tuple[int, int, int]) -> None:
    """Raise ValueError unless the network takes x0 of this shape, before any image is encoded."""
    try:
        getattr(network, "check_images", lambda shape: None)(shape)
    except ValueError as error:
        if shape == image_shape:
            raise
        raise ValueError(f"images of {list(image_shape)} have latents of {list(shape)}: {error}") from error


PAIRS = "pairs of times"
"""What an adversary judges that does not say it."""


def refuse_another_kind(config: DictConfig, network: nn.Module, adversary: nn.Module | None, loss: Any) -> None:
    """Raise ValueError unless the loss trains a network and an adversary of these kinds, in these micro-batches.

    A loss says in `needs` which attribute its network must have, and in `judged` what its adversary judges.
    """
    attribute, need = getattr(loss, "needs", ("", ""))
    if attribute and not hasattr(network, attribute):
        raise ValueError(f"{need}, got model={type(network).__name__}")
    if not attribute and no_samples(network):
        name = type(loss).__name__
        raise ValueError(f"loss={name} does not train model={type(network).__name__}: it is {no_samples(network)}")
    judges, judged = getattr(adversary, "judges", PAIRS), getattr(loss, "judged", PAIRS)
    if adversary is not None and judges != judged:
        remedy = "adversary=patch" if judged == "images" else "adversary=ddgan_small"
        raise ValueError(f"adversary={type(adversary).__name__} judges {judges}, not {judged}: choose {remedy}")
    if getattr(adversary, "takes_whole_steps", False) and config.trainer.accumulate_grad_batches > 1:
        raise ValueError(
            "adversary.norm=batch takes statistics of a whole step, which trainer.accumulate_grad_batches="
            f"{config.trainer.accumulate_grad_batches} splits: choose adversary.norm=group"
        )


def build_turns(config: DictConfig, loss: Any, networks: dict[str, nn.Module | None]) -> tuple[Turn, ...]:
    groups = {name: group for name, group in OPTIMIZERS.items() if networks[name] is not None}
    optimizers = {name: instantiate(config[group], group) for name, group in groups.items()}
    for name, group in groups.items():
        complete(optimizers[name], group, parameters=networks[name].parameters())  # only to raise its errors early
    return turns_of(loss, networks, optimizers)


def trainer(config: DictConfig, scores: Sequence[Callback] = ()) -> Trainer:
    """Lightning's Trainer with this run's callbacks and loggers. Devices are checked before anything starts."""
    settings = OmegaConf.to_container(config.trainer, resolve=True)
    known = annotations(Trainer) | {"precision": str}  # auto is none of Lightning's
    unknown = [name for name in settings if name not in known]
    if unknown:
        hint = check.suggestion(unknown[0], known)
        raise ValueError(f"trainer.{unknown[0]} is not a setting of Lightning's Trainer{hint}")
    check.integer("trainer.max_steps", settings["max_steps"], low=1)
    check.positive_int("trainer.accumulate_grad_batches", settings["accumulate_grad_batches"])
    check.positive_int("trainer.log_every_n_steps", settings["log_every_n_steps"])
    check.positive_number("limits.timeout_minutes", config.limits.timeout_minutes)
    settings = cluster.resolve_slurm(settings)
    for name, value in settings.items():
        check_type(f"trainer.{name}", value, known[name])
    settings["strategy"] = sharded_strategy.strategy(settings["strategy"])
    settings["accelerator"] = devices.accelerator(settings["accelerator"])
    settings["precision"] = devices.precision(settings["precision"], settings["accelerator"])
    devices.check_number(settings["accelerator"], settings["devices"])
    if settings["gradient_clip_val"] is not None:
        check.number("trainer.gradient_clip_val", settings["gradient_clip_val"], low=0)
    try:
        return lightning_trainer(config, settings, scores)
    except (MisconfigurationException, TypeError, ValueError) as error:
        named = next((name for name in settings if re.search(rf"`{name}\b|\b{name} *,", str(error))), None)
        if isinstance(error, ValueError) and named is None:
            raise
        raise ValueError(f"trainer.{named}={settings[named]}: {error}" if named else f"trainer: {error}") from error


def lightning_trainer(config: DictConfig, settings: dict[str, Any], scores: Sequence[Callback]) -> Trainer:
    limits = [TimeLimit(str(settings.pop("max_time")))] if settings.get("max_time") else []
    timeout = timedelta(minutes=config.limits.timeout_minutes)
    callbacks = config.get("callbacks") or {}  # sample.py and evaluate.py have no groups callbacks and logger
    lightning = Trainer(
        **settings,
        enable_checkpointing=bool(callbacks.get("checkpoint")),
        callbacks=[*build_parts(callbacks, "callbacks"), *scores, *limits],
        logger=[
            p(labels=wandb_labels(config)) if isinstance(p, partial) else p
            for p in build_parts(config.get("logger"), "logger")
        ],
        plugins=[AtomicCheckpointIO(), *cluster.cluster_environment()],
        default_root_dir=config.run_dir,
        use_distributed_sampler=False,  # the loaders split the data among ranks
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    take_over(lightning)
    if lightning.world_size > 1:
        connect_with(lightning.strategy, timeout)
    return lightning


def build_parts(group: DictConfig | None, key: str) -> list[Any]:
    """The parts of a group, without those set to null and without settings of absent parts."""
    parts = instantiate(group, key) if group else {}
    for name, part in parts.items():
        if isinstance(part, str | bool | int | float | list):
            check.fail(f"{key}.{name}", part, "null or a part (_target_: ...)")
    return [part for part in parts.values() if part is not None and not isinstance(part, dict)]
