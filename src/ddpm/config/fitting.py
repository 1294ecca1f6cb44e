"""Fit values of model parts to the training data, so that sampling does not need the data."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint.stored_config import Fitted
from ddpm.config.codec import build_codec, first_stage
from ddpm.config.load import guide
from ddpm.config.model import NOTHING, forward_process
from ddpm.config.wiring import instantiate
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.base import explain_no_captions
from ddpm.diffusion.conditions.caption_text import example_captions
from ddpm.diffusion.degradations.base import fit_statistics
from ddpm.model.latent_codec import HASH


def fitted_to_data(config: DictConfig, data: ImageDataModule, earlier: Fitted = NOTHING) -> Fitted:
    """The fitted values by group. Fields set in the configuration are kept. earlier: those of the run that is resumed.

    The scale of latents is found later, when all processes are there (`ddpm.training.callbacks.latents`).
    """
    found = {"cond": {**classes(config, data), **captions(config, data)}, "process": prior(config, data)}
    found["codec"] = first_stage_values(config, earlier)
    return {group: values for group, values in found.items() if values}


def first_stage_values(config: DictConfig, earlier: Fitted) -> Mapping[str, Any]:
    if "first_stage" not in config.codec:
        return {}
    return earlier.get("codec") or {HASH: weights_hash(first_stage(config.codec, guide))}


def prior(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """The prior of fully degraded training images, if a few numbers describe them; else {}."""
    if "fitted" not in config.process or config.process.fitted is not None:
        return {}
    process = forward_process(config, instantiate(config.schedule, "schedule"), {})
    if not process.fits_prior:
        return {}
    rank_zero_only(data.prepare_data)()
    codec = build_codec(config, {}, guide)
    if not codec.pixelwise:  # a prior of degraded pixels
        return {}
    fitted = fit_statistics(process, (codec.encode({"image": images}) for images in data.split("train").batches(256)))
    return {} if fitted is None else {"fitted": fitted}


def captions(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """Examples of captions, and the words of an encoder with its own vocabulary, for a condition on captions."""
    if not config.cond.get("text"):
        return {}
    rank_zero_only(data.prepare_data)()
    texts = data.listed_captions()
    if not any(texts or ()):
        raise ValueError(
            f"cond=caption needs captions, but data={data.name} has none{explain_no_captions(data.source.open())}; use "
            "data=mnist_captions, or images with a caption column (parquet), a metadata.jsonl (folder) or .txt files "
            "beside them (folder, zip, webdataset)"
        )
    found: dict[str, Any] = {"examples": example_captions(texts)}
    text = instantiate(config.text, "text")
    if not text.trained:
        return {**found, "encoder_sha256": text.embed.sha256}
    vocabulary_of = getattr(text, "vocabulary_of", None)
    return found if vocabulary_of is None else {**found, "vocabulary": vocabulary_of(texts)}


def classes(config: DictConfig, data: ImageDataModule) -> dict[str, Any]:
    """Number and names of the classes, for a condition with both fields; else {}."""
    if "names" not in config.cond or "num_classes" not in config.cond:
        return {}
    rank_zero_only(data.prepare_data)()
    num, names = data.require_classes()
    found = {"num_classes": num if config.cond.num_classes is None else config.cond.num_classes}
    return found if config.cond.names is not None or not names else {**found, "names": list(names)}
