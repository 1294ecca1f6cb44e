"""What evaluate.py sweep=samplers goes through: every sampler with every number of steps, as changes of a model."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from ddpm import build, check


class Variant(NamedTuple):
    """A model as it is to be measured. changes: of its stored configuration. sampler: its name, "" without a sweep."""

    changes: DictConfig
    sampler: str = ""
    steps: int | None = None

    def __str__(self) -> str:
        return f"{self.sampler} with {self.steps or 'all'} steps" if self.sampler else ""


def variants(config: DictConfig) -> list[Variant]:
    """Without a sweep the one that the command describes. ValueError for names that are no option of the sweep."""
    changes = build.changes(config)
    if not config.get("sweep"):
        return [Variant(changes)]
    if config.get("sampler"):
        raise ValueError("sampler has no effect with a sweep, which names its own; choose them as sweep.samplers=[...]")
    for field in ("samplers", "steps", "options"):
        if config.sweep.get(field) is None:
            raise ValueError(f"a sweep needs sweep.{field}; choose sweep=samplers")
    options = OmegaConf.to_container(config.sweep.options, resolve=False)
    names = [check.one_of("sweep.samplers", name, options) for name in listed("samplers", config.sweep.samplers)]
    steps = listed("steps", config.sweep.steps)
    for number in steps:
        if number is not None:
            check.positive_int("sweep.steps", number)
    for group in ("variance", "grid"):
        if config.get(group) and not any(group in options[name] for name in names):
            raise ValueError(f"{group} has no effect on sweep.samplers={names}; leave it out")
    return [
        Variant(OmegaConf.merge(changes, {"sampler": {**options[name], "steps": number}}), name, number)
        for name in names
        for number in steps
    ]


def listed(field: str, values: Any) -> Sequence[Any]:
    """A list of at least one value, each once."""
    if not OmegaConf.is_list(values) or not values or len(set(values)) < len(values):
        check.fail(f"sweep.{field}", values, "a list in which each comes once, as [10, 20] or [ddim, heun]")
    return list(values)


def refuse_what_cannot_run(paths: Sequence[Path], some: Sequence[Variant], changes: DictConfig) -> None:
    """ValueError that names the sampler and the steps that a model cannot take, before any image is made."""
    for path in paths:
        module, stored = build.from_checkpoint(path, changes)
        process = module.sampler.process
        for variant in some:
            try:
                settings = build.changed(stored, variant.changes).sampler
                sampler = build.complete(build.instantiate(settings, "sampler"), "sampler", process=process)
                sampler.times(process.T)
            except ValueError as error:
                raise ValueError(f"sweep: {variant}: {error}") from error
