"""The interface of sweeps: variants of a model, and a table and a picture of their values."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from hydra.utils import get_object
from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.config.field_types import check_types
from ddpm.evaluation.sweeps.points import SweepPoint, best_point, metrics
from ddpm.evaluation.table import direction, format_estimate
from ddpm.model.diffusion_model import DiffusionModel


class Variant(NamedTuple):
    """A variant of a model. changes: overrides of its stored configuration. name, value: its place in a sweep, such as
    ddim and 10 steps; the name is "" without a sweep, and a value of None is the model's own. title: both as text."""

    changes: DictConfig
    name: str = ""
    value: float | None = None
    title: str = ""


class Sweep(ABC):
    """text and picture get points in the order of `order_points`. columns: those that tell the variant of a row."""

    columns: ClassVar[Mapping[str, Callable[[SweepPoint], object]]]

    @abstractmethod
    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        """config: of the command; changes: overrides for all variants. ValueError for options without effect."""

    @abstractmethod
    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        """ValueError if a variant is not valid for the model; called before images are generated."""

    def value(self, variant: Variant, model: DiffusionModel) -> float:
        """The value of the variant, or that of the model if the variant has None."""
        return variant.value

    def order_points(self, points: Sequence[SweepPoint]) -> list[SweepPoint]:
        return sorted(points, key=lambda point: point.value)

    def describe(self, point: SweepPoint) -> str:
        """The variant of a point as text."""
        return f"{point.name} {point.value:g}"

    @abstractmethod
    def text(self, points: Sequence[SweepPoint]) -> str: ...

    @abstractmethod
    def picture(self, points: Sequence[SweepPoint]) -> Figure: ...

    def rows(self, points: Sequence[SweepPoint]) -> list[dict[str, Any]]:
        """Table rows: each metric of a point with its error, and whether it is the best."""
        tops = {name: best_point(points, name) for name in metrics(points)}
        rows = []
        for point in points:
            row = {head: column(point) for head, column in self.columns.items()} | {"repeats": point.num_repeats}
            for name, top in tops.items():
                value, error = point.estimates[name]
                row |= {name: value, f"{name}_error": error, f"{name}_best": str(point is top).lower() if top else ""}
            rows.append(row | {"seconds_per_image": point.seconds, "device": point.device, "settings": point.settings})
        return rows

    def best_lines(self, points: Sequence[SweepPoint], names: Sequence[str]) -> str:
        tops = {name: top for name in names if (top := best_point(points, name))}
        return "\n".join(
            f"best {name} ({direction(name)}): {self.describe(top)}: {format_estimate(top.estimates[name])}"
            for name, top in tops.items()
        )


def build_sweep(config: DictConfig) -> Sweep | None:
    """The sweep of a command. Its fields are passed unresolved, because some contain configurations of samplers."""
    if not config.get("sweep"):
        return None
    fields: dict[str, Any] = OmegaConf.to_container(config.sweep, resolve=False)
    check_types(OmegaConf.create(fields), "sweep")
    if "_target_" not in fields:
        raise ValueError(f"sweep.{next(iter(fields))} belongs to a sweep: choose sweep=samplers or sweep=guidance")
    return get_object(fields.pop("_target_"))(**fields)


def unique_values(field: str, values: Any) -> list[Any]:
    """A list of at least one value, without repeats; else ValueError."""
    if not isinstance(values, list) or not values or len(set(map(str, values))) < len(values):
        check.fail(f"sweep.{field}", values, "a list without repeats, as [10, 20] or [ddim, heun]")
    return values
