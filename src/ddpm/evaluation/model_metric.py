"""The interface of metrics of a model itself, such as its likelihood; `metric` selects them like scores of images."""

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
    """The input of a model metric.

    model: in eval mode, not yet on the device; the metric uses its `predict_weights`. None without a checkpoint.
    config: the model's configuration; without a checkpoint, the command's. folder: for files of the metric.
    """

    model: DiffusionModel | None
    config: DictConfig
    ckpt: Path | None
    trainer: Trainer
    folder: Path


class Measurement(NamedTuple):
    """estimates: by name. protocol: fields of an `EvaluationProtocol`, at least `num_generated` (the number of measured
    images or samples) and `scores` (the metric of each value, with its settings).

    pictures (figures, or uint8 `[H, W, 3]`) and tables (rows that map columns to values): by name, written beside the
    result as PNG and CSV. lines: printed.
    """

    estimates: Mapping[str, Estimate]
    protocol: Mapping[str, Any]
    pictures: Mapping[str, Tensor | Figure] = MappingProxyType({})
    lines: Sequence[str] = ()
    tables: Mapping[str, Sequence[Mapping[str, Any]]] = MappingProxyType({})


class ModelMetric(Protocol):
    """needs_checkpoint: False if the metric builds its own model from the configuration; True by default.

    Its YAML refers to settings of the command, as in `batch_size: ${batch_size}`. It runs on every process, and its
    values are stored in a result like those of a score.
    """

    needs_checkpoint: ClassVar[bool] = True

    def measure(self, run: ModelRun) -> Measurement: ...
