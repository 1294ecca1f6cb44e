"""What the parts of a model take from the training data, so that nobody needs the data to sample."""

from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.checkpoint.stored_config import Fitted
from ddpm.config.model import forward_process
from ddpm.config.wiring import instantiate
from ddpm.data.datamodule import ImageDataModule
from ddpm.diffusion.degradations.base import fit_statistics


def fitted_to_data(config: DictConfig, data: ImageDataModule) -> Fitted:
    """What the parts take from the data, so that nobody needs the data to sample; fields set by hand stay."""
    found = {"cond": classes(config, data), "process": prior(config, data)}
    return {group: values for group, values in found.items() if values}


def prior(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """What the training images look like once they are fully degraded, if that is a handful of numbers."""
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
