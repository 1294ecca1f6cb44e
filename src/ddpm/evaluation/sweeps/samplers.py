"""evaluate.py sweep=samplers: every sampler with every number of steps."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.config import load, wiring
from ddpm.evaluation import sampler_plot
from ddpm.evaluation.sweeps.base import Variant, unique_values
from ddpm.model.diffusion_model import DiffusionModel


class SamplerSweep:
    """options: settings of each sampler by name. samplers: which of them. steps: numbers of steps, None for all T."""

    presentation = sampler_plot

    def __init__(self, options: Mapping[str, Any], samplers: Sequence[str], steps: Sequence[int | None]) -> None:
        self.options = options
        self.samplers = [check.one_of("sweep.samplers", name, options) for name in unique_values("samplers", samplers)]
        self.steps = unique_values("steps", steps)
        for number in self.steps:
            if number is not None:
                check.positive_int("sweep.steps", number)

    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        if config.get("sampler"):
            raise ValueError(
                "sampler has no effect with a sweep, which names its own; choose them as sweep.samplers=[...]"
            )
        for group in ("variance", "timestep_spacing"):
            if config.get(group) and not any(group in self.options[name] for name in self.samplers):
                raise ValueError(f"{group} has no effect on sweep.samplers={self.samplers}; leave it out")
        return [self.variant(changes, name, number) for name in self.samplers for number in self.steps]

    def variant(self, changes: DictConfig, name: str, steps: int | None) -> Variant:
        sampler = {"sampler": {**self.options[name], "steps": steps}}
        return Variant(OmegaConf.merge(changes, sampler), name, steps, f"{name} with {steps or 'all'} steps")

    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        model, stored = load.from_checkpoint(path, changes)
        process = model.sampler.process
        for variant in variants:
            try:
                settings = load.merged(stored, variant.changes).sampler
                sampler = wiring.complete(wiring.instantiate(settings, "sampler"), "sampler", process=process)
                sampler.times(process.T)
            except ValueError as error:
                raise ValueError(f"sweep: {variant.title}: {error}") from error

    def value(self, variant: Variant, model: DiffusionModel) -> float:
        return len(model.sampler.times(model.sampler.process.T)) - 1
