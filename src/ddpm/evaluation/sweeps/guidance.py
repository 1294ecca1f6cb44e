"""evaluate.py sweep=guidance: one model, guided ever more strongly."""

from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from ddpm.base import check
from ddpm.config import load
from ddpm.evaluation import guidance_plot
from ddpm.evaluation.sweeps.base import Variant, unique_values
from ddpm.model.diffusion_model import DiffusionModel

SCALE = "scale"


class GuidanceSweep:
    """scales: of guidance.scale, each a number from 0."""

    presentation = guidance_plot

    def __init__(self, scales: Sequence[float]) -> None:
        self.scales = unique_values("scales", scales)
        for scale in self.scales:
            check.number("sweep.scales", scale, low=0)

    def variants(self, config: DictConfig, changes: DictConfig) -> list[Variant]:
        return [
            Variant(OmegaConf.merge(changes, {"guidance": {SCALE: scale}}), SCALE, scale, f"scale {scale:g}")
            for scale in self.scales
        ]

    def refuse(self, path: Path, variants: Sequence[Variant], changes: DictConfig) -> None:
        """A guidance that is not 1, the conditional model itself, shows what is wrong with any."""
        furthest = max(variants, key=lambda variant: abs(variant.value - 1))
        try:
            _, stored = load.from_checkpoint(path, changes)
            if SCALE not in stored.guidance:
                raise ValueError("nothing guides this model; choose guidance=classifier_free, or guidance=classifier")
            load.from_checkpoint(path, furthest.changes)
        except ValueError as error:
            raise ValueError(f"sweep=guidance: {error}") from error

    def value(self, variant: Variant, model: DiffusionModel) -> float:
        return variant.value
