"""Load a trained model from a file or folder of this or another program, with the changes that a command makes."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import nn

from ddpm.base import check
from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint import groups
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.stored_config import FITTED, Fitted, check_config, refuse_without_model
from ddpm.config import exported
from ddpm.config.codec import FIRST_STAGE
from ddpm.config.model import build_model, refuse_idle_eps, with_network_settings
from ddpm.config.wiring import complete, instantiate, is_chosen
from ddpm.interop import (
    compvis,
    ddgan,
    diffusers,
    diffusers_first_stage,
    diffusers_latent,
    exported_folder,
    openai,
    openai_configuration,
    recognise,
)
from ddpm.interop.configuration import diffusers_configuration
from ddpm.interop.published import FirstStage, LatentModel, first_stage_configuration, latent_configuration
from ddpm.interop.weights import name_errors
from ddpm.model.diffusion_model import DiffusionModel, no_samples
from ddpm.model.latent_codec import HASH, LatentCodec
from ddpm.runs.console import say
from ddpm.runs.portable import open_config


def from_checkpoint(path: Path, changes: DictConfig, part: str | None = None) -> tuple[DiffusionModel, DictConfig]:
    """The model of a checkpoint and its configuration, in which `changes` replace stored settings.

    Nothing in the file is executed: it is loaded as data only, and every `_target_` in it must be a part of a model.
    Nor is memory taken for more weights than it holds. `recognise` decides what the path is.
    part: FIRST_STAGE takes the first stage out of a pipeline or file of another program that has one.
    """
    kind = recognise.recognise(path)
    if part == FIRST_STAGE and kind in FIRST_STAGES:
        return from_stage(path, changes)
    return READERS[kind](path, changes)


def from_own(path: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    stored = read_checkpoint(path)
    refuse_without_model(stored["config"], f"ckpt={path}")
    with one_error(path):
        config, fitted = changed(stored["config"], changes)
        refuse_other_weights(config, stored["state_dict"], path)
        model = rebuilt(config, fitted)
        of_model = ("network.", "averages.")  # and not of the loss
        model.load_state_dict({key: w for key, w in stored["state_dict"].items() if key.startswith(of_model)})
    return model.eval(), config


def guide(path: Path, part: str | None = None, field: str = "ckpt") -> DiffusionModel:
    """Load a model that is used by another one, without changes. part: as of `from_checkpoint`.

    field: the field that gave the path; errors name it instead of ckpt.
    """
    try:
        return from_checkpoint(path, OmegaConf.create(), part)[0]
    except ValueError as error:
        raise ValueError(re.sub(r"^ckpt(?==| must )", field, str(error))) from error


@contextmanager
def one_error(path: Path) -> Iterator[None]:
    """Make any error of building from a stored configuration, as with a text for a number, a ValueError."""
    try:
        yield
    except (ValueError, OmegaConfBaseException):
        raise
    except Exception as error:
        reason = (str(error.__cause__ or error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"ckpt={path} has a configuration from which no model can be built: {reason}") from error


def refuse_other_weights(config: DictConfig, weights: dict[str, torch.Tensor], path: Path) -> None:
    """Raise ValueError unless the weights match the network and its averages. Allocates no memory for them."""
    time_sampler = instantiate(config.time_sampler, "time_sampler")
    with torch.device("meta"):
        network = instantiate(config.model, "model")
        averages = complete(instantiate(config.ema, "ema"), "ema", network=network)
        adversary = instantiate(config.adversary, "adversary") if is_chosen(config, "adversary") else None
    parts = {"network": network, "averages": averages, "time_sampler": time_sampler, "adversary": adversary}
    wanted = nn.ModuleDict({name: part for name, part in parts.items() if isinstance(part, nn.Module)}).state_dict()
    refuse_other_shapes(wanted, weights, path)


def refuse_other_shapes(wanted: dict[str, torch.Tensor], weights: dict[str, torch.Tensor], path: Path) -> None:
    shapes, found = ({key: getattr(w, "shape", None) for key, w in some.items()} for some in (wanted, weights))
    different = [key for key in shapes.keys() | found.keys() if shapes.get(key, 0) != found.get(key, 0)]
    if different:
        raise ValueError(
            f"ckpt={path} has weights that do not match its configuration: {len(different)} differ, as {min(different)}"
        )


def from_exported(folder: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    stored = exported_folder.load_exported_folder(folder)
    about = check_config(stored.config, f"ckpt={folder}")
    refuse_without_model(about, f"ckpt={folder}")
    with one_error(folder):
        config, fitted = changed(about, changes)
        with torch.device("meta"):
            network = instantiate(config.model, "model")
        wanted = network.state_dict(prefix=exported.state_prefix(stored.weights))
        refuse_other_shapes(wanted, stored.tensors, folder)
        model = rebuilt(config, fitted)
        exported.load_exported(model, stored, folder)
    return model.eval(), config


def from_diffusers(folder: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    pretrained = diffusers.load_diffusers(folder)
    if pretrained.sample_size is None:
        raise ValueError(f"ckpt={folder} does not state the size of its images: add sample_size to its config.json")
    if pretrained.scheduler is None:
        say(f"ckpt={folder} has no scheduler: used as with DDPMScheduler(), unless schedule and objective are given")
    return from_weights(folder, diffusers_configuration(pretrained), pretrained.network.state_dict(), changes)


def from_openai(path: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    pretrained = openai.load_openai(path)
    return from_weights(path, openai_configuration.openai_configuration(pretrained), pretrained.weights, changes)


def from_ddgan(path: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    pretrained = ddgan.load_ddgan(path)
    return from_weights(path, ddgan.ddgan_configuration(pretrained), pretrained.weights, changes)


def from_stage(path: Path, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    stage = FIRST_STAGES[recognise.recognise(path)](path)
    return from_weights(path, first_stage_configuration(stage), stage.weights, changes)


def from_latent(path: Path, model: LatentModel, changes: DictConfig) -> tuple[DiffusionModel, DictConfig]:
    """A model of latents, whose first stage is in the same folder or file."""
    with name_errors(path):
        configuration = latent_configuration(model, path)
    with torch.device("meta"):
        network = model.first_stage.builder(**model.first_stage.settings)
    network.load_state_dict(model.first_stage.weights, assign=True)
    configuration[FITTED] = {"codec": {HASH: weights_hash(network)}}
    if model.text and model.text.weights is None:
        text = instantiate(OmegaConf.merge(model.text.text, changes.get("text") or {}), "text")
        configuration[FITTED]["cond"] = {"encoder_sha256": text.embed.sha256}
    return from_weights(path, configuration, model.network[1], changes)


def from_weights(
    path: Path, configuration: dict[str, Any], weights: dict[str, torch.Tensor], changes: DictConfig
) -> tuple[DiffusionModel, DictConfig]:
    """A model of another program. weights: of the network."""
    with one_error(path):
        config, fitted = changed(configuration, changes)
        model = rebuilt(config, fitted)
        model.network.load_state_dict(weights)
    return model.eval(), config


FIRST_STAGES: dict[str, Callable[[Path], FirstStage]] = {
    recognise.STAGE: diffusers_first_stage.load_first_stage,
    recognise.PIPELINE: diffusers_first_stage.load_first_stage,
    recognise.COMPVIS: compvis.load_first_stage,
    recognise.COMPVIS_STAGE: compvis.load_first_stage,
}
READERS: dict[str, Callable[[Path, DictConfig], tuple[DiffusionModel, DictConfig]]] = {
    recognise.OWN: from_own,
    recognise.EXPORTED: from_exported,
    recognise.UNET: from_diffusers,
    recognise.OPENAI: from_openai,
    recognise.DDGAN: from_ddgan,
    recognise.STAGE: from_stage,
    recognise.COMPVIS_STAGE: from_stage,
    recognise.COMPVIS: lambda path, changes: from_latent(path, compvis.load_compvis(path), changes),
    recognise.PIPELINE: lambda path, changes: from_latent(path, diffusers_latent.load_latent(path), changes),
}
"""The function that opens each kind of path."""


class NoSamples(ValueError):
    """A model of another kind, as a classifier, is given where images are to be generated."""


def refuse_without_samples(model: DiffusionModel, path: Path) -> None:
    why = no_samples(model.best_network)
    if why:
        raise NoSamples(f"ckpt={path} is {why.replace('CHECKPOINT', str(path))}")


def changes(config: DictConfig) -> DictConfig:
    """The settings of a model that a command changes: its groups that are not empty."""
    container = OmegaConf.to_container(config, resolve=False)
    return OmegaConf.create(
        {group: container[group] for group in (*groups.group_names(builds=True), "data") if container.get(group)}
    )


def changed(stored: dict[str, Any], changes: DictConfig) -> tuple[DictConfig, Fitted]:
    """The stored configuration with the changes. Fitted values of a replaced part or field are dropped."""
    config, fitted = open_config(stored)
    refuse_without_reader(config, changes)
    places = OmegaConf.masked_copy(changes, {"text"} & set(changes))  # of the text encoder, which has network settings
    config = merged(with_network_settings(merged(config, places), fitted), changes)
    refuse_idle_eps(changes.get("sampler", {}), config)
    kept = {
        group: {name: value for name, value in values.items() if name not in changes.get(group, {})}
        for group, values in fitted.items()
        if "_target_" not in changes.get(group, {})
    }
    return config, kept


def refuse_without_reader(config: DictConfig, changes: DictConfig) -> None:
    """Raise ValueError for a change of a part that the sampler or the process does not have."""
    process = get_object({**config.process, **changes.get("process", {})}["_target_"])
    if idle := next((group for group in getattr(process, "idle", ()) if group in changes), None):
        raise ValueError(f"{idle} has no effect on the process {process.__name__}; leave it out")
    if "_target_" in changes.get("sampler", {}):
        return
    for group in ("variance", "timestep_spacing"):
        if group in changes and f"${{{group}}}" not in str(config.sampler):
            name = config.sampler._target_.rpartition(".")[2]
            raise ValueError(f"{group} has no effect on the stored sampler, {name}; leave it out, or choose a sampler")


def rebuilt(config: DictConfig, fitted: Fitted) -> DiffusionModel:
    """The model of a stored configuration, without its weights."""
    model = build_model(config, fitted, guide)
    if isinstance(model.codec, LatentCodec) and not model.codec.is_fitted:
        raise ValueError(
            "the scale and shift of latents are found in training: leave codec.scale and codec.shift as they were "
            "trained, or set codec.scale to a number and codec.shift to false"
        )
    return model


class UnknownField(ValueError):
    """A command sets a field that the stored configuration does not have. field: as `group.field`."""

    def __init__(self, group: str, field: str, hint: str) -> None:
        super().__init__(f"there is no '{group}.{field}' to set{hint}")
        self.field = f"{group}.{field}"


def merged(stored: DictConfig, changes: DictConfig) -> DictConfig:
    """Apply the changes in place: a selected option replaces the stored group; single fields change it."""
    for group, value in changes.items_ex(resolve=False):
        known = {field for field in stored[group] if not field.startswith("_")}
        stored[group] = value if "_target_" in value else OmegaConf.merge(stored[group], value)
        for field in value if "_target_" not in value else ():
            if field not in known:
                others = f"; the stored {group} has {', '.join(sorted(known))}" if known else ""
                raise UnknownField(group, field, check.suggestion(field, known) or others)
    return stored
