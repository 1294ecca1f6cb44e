"""Shared by sample.py and evaluate.py: the identity of images, and messages about stored images."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig, OmegaConf

from ddpm.base.environment import device_name
from ddpm.base.exit_codes import NO_SPACE, ProcessLost
from ddpm.base.system_errors import CHOOSE, REMEDIES
from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import FITTED, Fitted
from ddpm.generation.record import GenerationRecord
from ddpm.generation.stores.base import ImageStore
from ddpm.interop.hub import hub_name_of
from ddpm.interop.recognise import OWN, recognise
from ddpm.metrics.protocol import short_digest
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.runs.interruption import Interrupted


def identity(stored: DictConfig, model: DiffusionModel, trainer: Trainer) -> dict[str, Any]:
    """All settings that determine the images, except for rounding. stored: the model's configuration with changes."""
    return {
        "image_shape": list(model.image_shape),
        "seed": model.sample_rng.seed,
        "sampler": model.sampler.describe(),
        "steps": model.sampler.steps or model.sampler.process.T,
        "weights": model.describe_weights(model.predict_weights),
        "weights_sha256": weights_hash(model.weights(model.predict_weights)),
        "precision": str(trainer.precision),
        **image_settings(stored, model.config[FITTED]),
        **({"guides_sha256": [weights_hash(guide) for guide in model.guides]} if model.guides else {}),
    }


def image_settings(stored: DictConfig, fitted: Fitted) -> dict[str, Any]:
    """The settings of the groups with `decides_images`. The sampler, with variance and time spacing, is not included.

    A group that older configurations lack is left out if it has the value that they imply, as in older records.
    """
    older = groups.old_config_defaults()
    chosen = [group for group in groups.group_names(decides_images=True) if stored[group] != older.get(group)]
    settings = {group: OmegaConf.to_container(stored[group], resolve=True) for group in chosen}
    settings = {group: {**settings[group], **fitted.get(group, {})} for group in chosen}
    return {
        group: {name: value for name, value in settings[group].items() if name not in groups.places(group)}
        for group in chosen
    }


def describe_groups(images: dict[str, Any]) -> dict[str, Any]:
    """An identity with each group as a text, for the subject of a result."""
    return {name: describe_part(value) if isinstance(value, dict) else value for name, value in images.items()}


def describe_part(part: Any) -> str:
    """A text such as "StaticThresholding()" for a part of a configuration. Long lists and mappings become digests."""
    if isinstance(part, dict) and "_target_" in part:
        name = part["_target_"].rpartition(".")[2] if part["_target_"].startswith("ddpm.") else part["_target_"]
        settings = ", ".join(f"{key}={describe_part(value)}" for key, value in part.items() if not key.startswith("_"))
        return f"{name}({settings})"
    return f"#{short_digest(part)}" if isinstance(part, dict | list) and len(str(part)) > 60 else str(part)


def circumstances(config: DictConfig, trainer: Trainer) -> dict[str, Any]:
    """Settings that change only the rounding of images."""
    return {
        "batch_size": config.batch_size,
        "processes": trainer.world_size,
        "device": device_name(trainer.strategy.root_device),
        "torch": torch.__version__,
    }


@rank_zero_only
def report_progress(num_found: int, store: ImageStore, record: GenerationRecord) -> None:
    num_damaged = sum(number < store.num_samples for number, _ in store.stored()) - num_found
    if num_damaged:
        print(f"{num_damaged:,} stored images are damaged and are generated again", flush=True)
    if num_found:
        print(f"continuing: {num_found:,} of {store.num_samples:,} images exist", flush=True)
    for earlier in record.earlier():
        changes = [f"{name} {was} before, {record.made_with[name]} now" for name, was in earlier.items()]
        changed = [text for text, name in zip(changes, earlier, strict=True) if earlier[name] != record.made_with[name]]
        print(f"images may differ by rounding from those of an uninterrupted run: {', '.join(changed)}", flush=True)


def describe_kept(store: ImageStore) -> str:
    return f"{int(store.done_mask().sum()):,} of {store.num_samples:,} samples are kept"


@contextmanager
def explain_kept(store: ImageStore, field: str = "out=", other: str = "choose another path") -> Iterator[None]:
    """State how many samples are kept if one cannot be written, or if a signal or a fault ends the generation.

    field, other: text before the folder, and what to do without it.
    """
    how = "continue" if store.continues else "start again (format=png and npz continue)"
    remedy = f"run the same command again to {how}"
    try:
        yield
    except Interrupted as interrupted:
        interrupted.kept = f"{describe_kept(store)}; {remedy}"
        raise
    except (RuntimeError, MemoryError, ProcessLost) as error:
        error.add_note(f"{describe_kept(store)}; {remedy}")
        raise
    except OSError as error:
        file = Path(str(error.filename or store.folder))
        if error.errno not in REMEDIES or not file.is_relative_to(store.folder):
            raise
        what = "has no room left" if error.errno in NO_SPACE else "cannot be read or written"
        kept = f"{describe_kept(store)}; {REMEDIES[error.errno].replace(CHOOSE, other)}"
        raise ValueError(f"{field}{store.folder} {what} ({error.strerror}: {file}): {kept}") from error


def is_of_a_run(checkpoint: Path) -> bool:
    """Whether train.py wrote it: folders and files of weights of other programs name no run and no step."""
    return not checkpoint.is_dir() and checkpoint.suffix not in (".pt", ".pth") and recognise(checkpoint) == OWN


def run_folder_of(checkpoint: Path) -> Path:
    """The folder of the run that made a checkpoint; a folder of weights is its own, a file of weights lies in its.

    Nothing is written to a cache of the hub: its models have folders under runs/hub.
    """
    if name := hub_name_of(checkpoint):
        return Path("runs/hub") / f"{name.repo}@{name.revision[:12]}"
    if is_of_a_run(checkpoint):
        return checkpoint.parent.parent
    return checkpoint if checkpoint.is_dir() else checkpoint.parent


def stem(checkpoint: Path) -> str:
    """The name of a checkpoint without extension, or the name of a folder."""
    if name := hub_name_of(checkpoint):
        return Path(name.repo).name
    return checkpoint.name if checkpoint.is_dir() else checkpoint.stem
