"""Metrics of a model itself, such as its likelihood, beside the scores of its images: other parts of `metric`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

from lightning.pytorch import Trainer
from matplotlib.figure import Figure
from omegaconf import DictConfig
from torch import Tensor

from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel


@dataclass(frozen=True)
class ModelRun:
    """What a model metric is given.

    model: in eval mode, to be brought to the device; its `predict_weights` are meant. None without a checkpoint.
    config: what the model was built from; without a checkpoint the command's. folder: for files of the metric's own.
    """

    model: DiffusionModel | None
    config: DictConfig
    ckpt: Path | None
    trainer: Trainer
    folder: Path


class Measurement(NamedTuple):
    """estimates: by name. protocol: fields of an `EvaluationProtocol`; of `num_generated` (how many images or samples
    were measured) and `scores` (what made each value, with its settings) there is no default.

    pictures: drawings, or uint8 `[H, W, 3]`, and tables: rows by column, by name, written beside the result as PNG and
    CSV. lines: for a person.
    """

    estimates: Mapping[str, Estimate]
    protocol: Mapping[str, Any]
    pictures: Mapping[str, Tensor | Figure] = MappingProxyType({})
    lines: Sequence[str] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({})


class ModelMetric(Protocol):
    """needs_checkpoint: False where it makes its own model of the configuration; true where it says nothing.

    What it takes of the command, as the number of images, its YAML refers to: `batch_size: ${batch_size}`. It runs on
    every process, prints its own tables on the first, and its values go into a result as those of a score do.
    """

    needs_checkpoint: ClassVar[bool] = True

    def measure(self, run: ModelRun) -> Measurement: ...
