"""Fit values of model parts to the training data, so that sampling does not need the data."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.checkpoint.stored_config import Fitted
from ddpm.config.model import forward_process
from ddpm.config.wiring import instantiate
from ddpm.data.datamodule import ImageDataModule
from ddpm.diffusion.degradations.base import fit_statistics


def fitted_to_data(config: DictConfig, data: ImageDataModule) -> Fitted:
    """The fitted values by group. Fields set in the configuration are kept."""
    found = {"cond": classes(config, data), "process": prior(config, data)}
    return {group: values for group, values in found.items() if values}


def prior(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """The prior of fully degraded training images, if a few numbers describe them; else {}."""
    if "fitted" not in config.process or config.process.fitted is not None:
        return {}
    process = forward_process(config, instantiate(config.schedule, "schedule"), {})
    if not process.fits_prior:
        return {}
    if data.download:
        rank_zero_only(data.prepare_data)()
    codec = instantiate(config.codec, "codec")
    fitted = fit_statistics(process, (codec.encode(images) for images in data.split("train").batches(256)))
    return {} if fitted is None else {"fitted": fitted}


def classes(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """Number and names of the classes, for a condition with both fields; else {}."""
    if "names" not in config.cond or "num_classes" not in config.cond:
        return {}
    if data.download:
        rank_zero_only(data.prepare_data)()
    num, names = data.listed_classes()
    if num is None:
        raise ValueError(f"cond=class needs labels, but data={data.name} has none")
    found = {"num_classes": num if config.cond.num_classes is None else config.cond.num_classes}
    return found if config.cond.names is not None or not names else {**found, "names": list(names)}
