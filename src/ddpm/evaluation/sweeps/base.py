"""What a sweep is: a model in many variants, and how their values are shown together."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from hydra.utils import get_object
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.evaluation.sweep_table import Columns, SweepPoint
from ddpm.model.diffusion_model import DiffusionModel


class Variant(NamedTuple):
    """A model as it is to be measured. changes: of its stored configuration. name, value: its place in a sweep, as ddim
    and 10 steps; a name of "" is of no sweep, and a value of None is the model's own. title: both in words."""

    changes: DictConfig
    name: str = ""
    value: float | None = None
    title: str = ""


class Presentation(Protocol):
    """A module: how the points of a sweep are shown. text and picture take them in order."""

    COLUMNS: Columns

    def order_points(self, points: Sequence[SweepPoint]) -> list[SweepPoint]: ...

    def text(self, points: Sequence[SweepPoint]) -> str: ...

    def picture(self, points: Sequence[SweepPoint]) -> Figure: ...


class Sweep(Protocol):
    presentation: Presentation

    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        """config: the command's; changes: what it changes of a model anyway. ValueError for what has no effect."""
        ...

    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        """ValueError if a model cannot take a variant, before any image is made."""
        ...

    def value(self, variant: Variant, model: DiffusionModel) -> float:
        """The variant's own, or what that is of this model."""
        ...


def build_sweep(config: DictConfig) -> Sweep | None:
    """The sweep of a command. Its fields are handed on as they are written: some hold parts of a model."""
    if not config.get("sweep"):
        return None
    fields: dict[str, Any] = OmegaConf.to_container(config.sweep, resolve=False)
    if "_target_" not in fields:
        raise ValueError(f"sweep.{next(iter(fields))} belongs to a sweep: choose sweep=samplers or sweep=guidance")
    return get_object(fields.pop("_target_"))(**fields)


def unique_values(field: str, values: Any) -> list[Any]:
    """A list of at least one value, each once."""
    if not isinstance(values, list) or not values or len(set(map(str, values))) < len(values):
        check.fail(f"sweep.{field}", values, "a list in which each comes once, as [10, 20] or [ddim, heun]")
    return values
