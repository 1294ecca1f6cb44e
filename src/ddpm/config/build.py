"""A configuration in, wired objects out."""

import copy
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

import hydra
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.utilities import rank_zero_only
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ddpm.base import check
from ddpm.checkpoint import groups
from ddpm.checkpoint.folder import listed, newest_whole
from ddpm.checkpoint.reading import hold, read_checkpoint
from ddpm.checkpoint.stored_config import (
    FITTED,
    Fitted,
    checked,
    refuse_without_model,
)
from ddpm.checkpoint.writing import AtomicCheckpointIO
from ddpm.config import exported
from ddpm.config.guiding import guiding
from ddpm.config.wiring import complete, instantiate
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.images import height_width
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.condition import ClassLabel
from ddpm.diffusion.degradations.base import fitted_to
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses.classification import Classification
from ddpm.diffusion.noise import White
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.steps import Schedule
from ddpm.interop import diffusers, exported_folder, openai, openai_configuration
from ddpm.interop.configuration import configuration
from ddpm.model.codec import BinaryCodec
from ddpm.runs import cluster, devices, launch
from ddpm.runs.interruption import take_over
from ddpm.runs.portable import opened, portable
from ddpm.runs.typed import labels
from ddpm.training import sharding
from ddpm.training.callbacks.time_limit import TimeLimit
from ddpm.training.module import DiffusionModule

# The parts of a run


def data(config: DictConfig) -> ImageDataModule:
    named = {"name": str(config.data.name)} if config.data.get("name") is not None else {}  # a text, see `TEXT`
    return instantiate(OmegaConf.merge(config.data, dict.fromkeys(named)), "data", **named)


def module(config: DictConfig, fitted: Fitted = MappingProxyType({})) -> DiffusionModule:
    """schedule -> process -> objective, loss, sampler; network -> averages; all of it -> the module."""
    schedule = instantiate(config.schedule, "schedule")
    process = forward_process(config, schedule, fitted)
    stored, config = {**portable(config), FITTED: dict(fitted)}, with_network_settings(config, fitted)
    codec = instantiate(config.codec, "codec")
    if isinstance(process, BinomialDiffusion) and not isinstance(codec, BinaryCodec):
        raise ValueError("process=binomial needs pixels of -1 and 1: choose codec=binary")
    condition = instantiate(config.cond, "cond", **fitted.get("cond", {}))
    loss = complete(instantiate(config.loss, "loss"), "loss", process=process)
    if isinstance(loss, Classification) and not isinstance(condition, ClassLabel):
        raise ValueError("loss=classification needs labels: choose cond=class")
    torch.manual_seed(check.non_negative_int("seed", config.seed))
    network = instantiate(config.model, "model")
    if not isinstance(network, nn.Module):
        raise ValueError(
            f"model={type(network).__name__} is a closed form with nothing to train or to load; it is for "
            "python evaluate.py model=oracle_mixture metric=sampler_error"
        )
    if classifies(network) != isinstance(loss, Classification):
        raise ValueError(
            "loss=classification goes with a model that names classes, as model=classifier_tiny, and no other does"
        )
    if check.boolean("channels_last", config.channels_last):
        network = network.to(memory_format=torch.channels_last)
    averages = complete(instantiate(config.ema, "ema"), "ema", network=network)
    if check.boolean("compile", config.compile):
        network.compile()
    make_optimizer = instantiate(config.optimizer, "optimizer")
    complete(make_optimizer, "optimizer", parameters=network.parameters())  # only to meet its errors now
    objective = complete(instantiate(config.objective, "objective"), "objective", schedule=schedule)
    sampler = complete(instantiate(config.sampler, "sampler"), "sampler", process=process)
    sampler.times(process.T)  # only to meet its errors now
    steering = guiding(config, condition, sampler, load=lambda path: from_checkpoint(path, OmegaConf.create())[0])
    if not classifies(network):
        steering.wrap(NetworkDenoiser(network, objective))  # only to meet its errors now
    return DiffusionModule(
        network=network,
        objective=objective,
        loss=loss,
        sampler=sampler,
        wrap=steering.wrap,
        codec=codec,
        condition=condition,
        asked=steering.asked,
        averages=averages,
        make_optimizer=make_optimizer,
        image_shape=(config.data.channels, *height_width("data.size", config.data.size)),
        seed=config.seed,
        compile=config.compile,
        config=stored,
        guides=steering.networks,
    )


def forward_process(config: DictConfig, schedule: Schedule, fitted: Fitted) -> ForwardProcess:
    """The process with its schedule, and with its noise if it adds any."""
    process, noise = instantiate(config.process, "process"), instantiate(config.noise, "noise")
    arguments = {"schedule": schedule, **fitted.get("process", {})}
    if "noise" in inspect.signature(process).parameters:
        return complete(process, "process", noise=noise, **arguments)
    made = complete(process, "process", **arguments)
    if not isinstance(noise, White):
        name, source = type(made).__name__, type(noise).__name__
        raise ValueError(f"process={name} has no use for noise={source}; choose noise=gaussian, or process=gaussian")
    return made


def fitted_to_data(config: DictConfig, data: ImageDataModule) -> Fitted:
    """What the parts take from the data, so that nobody needs the data to sample; fields set by hand stay."""
    found = {"cond": classes(config, data), "process": prior(config, data)}
    return {group: values for group, values in found.items() if values}


def prior(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """What the training images look like once they are fully degraded, if that is a handful of numbers."""
    if "fitted" not in config.process or config.process.fitted is not None:
        return {}
    process = forward_process(config, instantiate(config.schedule, "schedule"), {})
    if not process.forgets:
        return {}
    if data.download:
        rank_zero_only(data.prepare_data)()
    codec = instantiate(config.codec, "codec")
    fitted = fitted_to(process, (codec.encode(images) for images in data.split("train").batches(256)))
    return {} if fitted is None else {"fitted": fitted}


def classes(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """Number and names of the classes, for a condition that takes both."""
    if "names" not in config.cond or "num_classes" not in config.cond:
        return {}
    if data.download:
        rank_zero_only(data.prepare_data)()
    num, names = data.listed_classes()
    if num is None:
        raise ValueError(f"cond=class needs labels, which data={data.name} does not have")
    found = {"num_classes": num if config.cond.num_classes is None else config.cond.num_classes}
    return found if config.cond.names is not None or not names else {**found, "names": list(names)}


def with_network_settings(config: DictConfig, fitted: Fitted) -> DictConfig:
    """The configuration whose network has what the other parts need of it, unless the network's own settings say so.

    A learned variance needs outputs of its own, a condition an entrance. Before another variance is chosen for
    sampling: the network stays the one that was trained.
    """
    taken = inspect.signature(hydra.utils.get_object(config.model._target_)).parameters
    needed = dict(instantiate(config.cond, "cond", **fitted.get("cond", {})).network_settings)
    for name, value in needed.items():
        if name not in taken:
            model, cond = (config[group]._target_.rpartition(".")[2] for group in ("model", "cond"))
            raise ValueError(f"model={model} cannot be told what cond={cond} tells (it has no {name}); choose another")
        if config.model.get(name) not in (None, False, value):
            check.fail(f"model.{name}", config.model[name], f"{value}, as cond needs it, or left out")
    per_channel = instantiate(config.variance, "variance").num_outputs
    if per_channel > 1 and "out_channels" in taken and config.model.get("out_channels") is None:
        needed["out_channels"] = per_channel * config.model.in_channels
    if not needed:
        return config
    with open_dict(copy.deepcopy(config)) as changed:
        changed.model.update(needed)
        return changed


def refuse_classifier(module: DiffusionModule, path: Path) -> None:
    if classifies(module.network):
        raise ValueError(
            f"ckpt={path} holds a classifier, which makes no images; it is for guidance=classifier "
            f"guidance.classifier={path}"
        )


def classifies(network: nn.Module) -> bool:
    """Whether the network names classes, and makes no images."""
    return bool(getattr(network, "classifies", False))


def trainer(config: DictConfig, scores: Sequence[Callback] = ()) -> Trainer:
    """Lightning's Trainer with this run's callbacks and loggers. Devices are checked before anything starts."""
    settings = OmegaConf.to_container(config.trainer, resolve=True)
    unknown = [name for name in settings if name not in inspect.signature(Trainer).parameters]
    if unknown:
        hint = check.nearest(unknown[0], inspect.signature(Trainer).parameters)
        raise ValueError(f"trainer.{unknown[0]} is not a setting of lightning's Trainer{hint}")
    check.integer("trainer.max_steps", settings["max_steps"], low=1)
    check.positive_int("trainer.accumulate_grad_batches", settings["accumulate_grad_batches"])
    check.positive_int("trainer.log_every_n_steps", settings["log_every_n_steps"])
    settings = cluster.settled(settings)
    settings["strategy"] = sharding.strategy(settings["strategy"])
    settings["accelerator"] = devices.accelerator(settings["accelerator"])
    settings["precision"] = devices.precision(settings["precision"], settings["accelerator"])
    devices.check_number(settings["accelerator"], settings["devices"])
    if settings["gradient_clip_val"] is not None:
        check.number("trainer.gradient_clip_val", settings["gradient_clip_val"], low=0)
    try:
        return lightning_trainer(config, settings, scores)
    except (MisconfigurationException, TypeError) as error:
        raise ValueError(f"trainer: {error}") from error


def lightning_trainer(config: DictConfig, settings: dict[str, Any], scores: Sequence[Callback]) -> Trainer:
    limits = [TimeLimit(str(settings.pop("max_time")))] if settings.get("max_time") else []
    lightning = Trainer(
        **settings,
        enable_checkpointing=bool(config.callbacks and config.callbacks.get("checkpoint")),
        callbacks=[*made(config.callbacks, "callbacks"), *scores, *limits],
        logger=[p(labels=labels(config)) if isinstance(p, partial) else p for p in made(config.logger, "logger")],
        plugins=[AtomicCheckpointIO(), *cluster.environment()],
        default_root_dir=config.run_dir,
        use_distributed_sampler=False,  # our loaders know their rank
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    take_over(lightning)
    return lightning


def made(group: DictConfig | None, key: str) -> list[Any]:
    """The parts of a group; one that was set to null is left out, and so are settings of a part that is not there."""
    parts = instantiate(group, key).values() if group else []
    return [part for part in parts if part is not None and not isinstance(part, dict)]


def from_checkpoint(path: Path, changes: DictConfig) -> tuple[DiffusionModule, DictConfig]:
    """The module of a checkpoint and its configuration, in which `changes` replace what was stored.

    Nothing in the file is executed: it is loaded as data only, and every `_target_` in it must be a part of a model.
    Nor is memory taken for more weights than it holds.
    A folder is one of ours, written by `ddpm export`, or else taken for a model of diffusers; a .pt is one of OpenAI's.
    """
    if path.is_dir():
        return from_exported(path, changes) if exported_folder.is_exported(path) else from_diffusers(path, changes)
    if path.suffix == ".pt":
        return from_openai(path, changes)
    stored = read_checkpoint(path)
    refuse_without_model(stored["config"], f"ckpt={path}")
    with one_error(path):
        config, fitted = changed(stored["config"], changes)
        refuse_other_weights(config, stored["state_dict"], path)
        made = module(config, fitted)
        made.load_state_dict(stored["state_dict"])
    return made.eval(), config


@contextmanager
def one_error(path: Path) -> Iterator[None]:
    """For work with a stored configuration, whose wrong types (a text for a number) may come up anywhere."""
    try:
        yield
    except (ValueError, OmegaConfBaseException):
        raise
    except Exception as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"ckpt={path} holds a configuration from which no model can be built: {reason}") from error


def refuse_other_weights(config: DictConfig, weights: dict[str, torch.Tensor], path: Path) -> None:
    """ValueError unless the weights are those of the network and its averages; takes no memory for either."""
    timesteps = instantiate(config.timesteps, "timesteps")
    with torch.device("meta"):
        network = instantiate(config.model, "model")
        averages = complete(instantiate(config.ema, "ema"), "ema", network=network)
    parts = {"network": network, "averages": averages, "timesteps": timesteps}
    wanted = nn.ModuleDict({name: part for name, part in parts.items() if isinstance(part, nn.Module)}).state_dict()
    refuse_other_shapes(wanted, weights, path)


def refuse_other_shapes(wanted: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], path: Path) -> None:
    shapes, found = ({key: getattr(w, "shape", None) for key, w in some.items()} for some in (wanted, weights))
    different = [key for key in shapes.keys() | found.keys() if shapes.get(key, 0) != found.get(key, 0)]
    if different:
        raise ValueError(
            f"ckpt={path} holds other weights than its configuration asks for: {len(different)} differ, as "
            f"{min(different)}"
        )


def from_exported(folder: Path, changes: DictConfig) -> tuple[DiffusionModule, DictConfig]:
    stored = exported_folder.load(folder)
    about = checked(stored.config, f"ckpt={folder}")
    refuse_without_model(about, f"ckpt={folder}")
    with one_error(folder):
        config, fitted = changed(about, changes)
        with torch.device("meta"):
            network = instantiate(config.model, "model")
        wanted = network.state_dict(prefix=exported.place(stored.weights))
        refuse_other_shapes(wanted, stored.tensors, folder)
        made = module(config, fitted)
        exported.fill(made, stored, folder)
    return made.eval(), config


def from_diffusers(folder: Path, changes: DictConfig) -> tuple[DiffusionModule, DictConfig]:
    pretrained = diffusers.load(folder)
    if pretrained.sample_size is None:
        raise ValueError(f"ckpt={folder} does not say the size of its images: add sample_size to its config.json")
    with one_error(folder):
        config, fitted = changed(configuration(pretrained), changes)
        made = module(config, fitted)
        made.network.load_state_dict(pretrained.network.state_dict())
    return made.eval(), config


def from_openai(path: Path, changes: DictConfig) -> tuple[DiffusionModule, DictConfig]:
    pretrained = openai.load(path)
    with one_error(path):
        config, fitted = changed(openai_configuration.configuration(pretrained), changes)
        made = module(config, fitted)
        made.network.load_state_dict(pretrained.weights)
    return made.eval(), config


def changes(config: DictConfig) -> DictConfig:
    """What a command chooses anew of a stored model: those of its groups that are not left empty."""
    container = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create(
        {group: container[group] for group in (*groups.names(builds=True), "data") if container.get(group)}
    )


def changed(stored: dict[str, Any], changes: DictConfig) -> tuple[DictConfig, Fitted]:
    """A stored model with what is chosen anew. The data gave nothing to a part that replaces another."""
    config, fitted = opened(stored)
    config = merged(with_network_settings(config, fitted), changes)
    return config, {group: fitted[group] for group in fitted if "_target_" not in changes.get(group, {})}


def merged(stored: DictConfig, changes: DictConfig) -> DictConfig:
    """A group that was chosen replaces the stored one; fields that were given alone change it."""
    for group, value in changes.items_ex(resolve=False):
        known = set(stored[group])
        stored[group] = value if "_target_" in value else OmegaConf.merge(stored[group], value)
        for field in value if "_target_" not in value else ():
            if field not in known:
                raise ValueError(f"there is no '{group}.{field}' to set{check.nearest(field, known)}")
    return stored


def checkpoint_path(ckpt: str) -> Path:
    """`latest` is the newest whole checkpoint under runs/, a run's folder its newest; anything else is a path.

    The same on all ranks, and held (`ddpm.checkpoint.reading`) if a file can be.
    """
    path = Path(str(ckpt))
    if ckpt == "latest" or (path / "checkpoints").is_dir():
        path = Path(launch.shared(lambda: str(newest_of(ckpt)), f"ckpt={ckpt}"))
    if path.is_file():
        hold(path)
    return path


def newest_of(ckpt: str) -> Path:
    """Held as soon as it is found: a training may remove it at any time, and then has written a newer one."""
    for attempt in range(20):
        try:
            path = newest_under_runs() if ckpt == "latest" else newest_whole(Path(ckpt) / "checkpoints")
            if path is not None:
                hold(path)
            return path or Path(ckpt)
        except FileNotFoundError:
            if attempt == 19:
                raise
    raise AssertionError


def newest_under_runs() -> Path:
    newest = [listed(folder)[0] for folder in Path("runs").glob("**/checkpoints") if listed(folder)]
    newest.sort(key=lambda path: path.stat().st_mtime, reverse=True)
    found = next(filter(None, (newest_whole(path.parent) for path in newest)), None)
    if found is None:
        raise ValueError("ckpt=latest finds no whole checkpoint under runs/; train first, or give a path")
    return found
