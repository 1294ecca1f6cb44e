"""metric=restoration: real images are degraded, and restored in one step and by both algorithms of Cold Diffusion."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.diffusion.samplers.restoration import ALGORITHM_1, ALGORITHM_2, DEGRADED, WAYS, restorations
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.images import ImagePass, OfImages, Split, mean_and_error
from ddpm.evaluation.table import estimates_table, with_errors
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.fidelity import psnr, rmse, ssim
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.tasks.sheet import sheet

HIGHEST = 100.0
"""PSNR in dB of an exact restoration, so that means stay finite."""
FIDELITY = {"psnr": lambda x, y: psnr(x, y).clamp(max=HIGHEST), "ssim": ssim, "rmse": rmse}
GAINS = {"gain": (ALGORITHM_2, DEGRADED), "gain_over_algorithm_1": (ALGORITHM_2, ALGORITHM_1)}
"""Paired differences of two ways over images, whose standard error is smaller than that of either."""


@dataclass(frozen=True)
class Restoration(OfImages):
    """t: the time to which images are degraded, 1..T; None: T. num_shown: number of images in the picture.

    features: extractor of FID; None: no FID. features_batch_size: images per pass of it. If a degradation is random,
    its z depends on the number of the image in the data set.
    """

    t: int | None
    num_shown: check.PositiveInt
    features: Any
    features_batch_size: int

    def measure(self, run: ModelRun) -> Measurement:
        T = run.model.sampler.process.T
        t = T if self.t is None else check.integer("metric.restoration.t", self.t, low=1, high=T)
        if run.model.sample_condition.needs_images:
            raise ValueError("metric=restoration needs a model that is not conditioned on images, and this one is")
        images = self.opened(run)
        evaluators = self.evaluators(str(run.config.data.get("name", "")))
        num_shown = min(self.num_shown, len(images))
        restored = RestorationPass(run.model, t, images, num_shown, evaluators).run(run.trainer, images)
        rows = {way: restored.values(way) for way in WAYS}
        values = {f"{name}_{name_in_code(way)}": value for way in reversed(WAYS) for name, value in rows[way].items()}
        for gain, (better, worse) in GAINS.items():
            values |= {f"{name}_{gain}": value for name, value in restored.gains(better, worse).items()}
        sampler = run.model.sampler
        settings = f"Restoration(t={t} of {T}, {len(sampler.times(t)) - 1} steps, sampler={sampler.describe()})"
        names = [*FIDELITY, *(["fid"] if evaluators else [])]
        beside = {
            "pictures": {"pictures": restored.picture()},
            "lines": estimates_table(rows).splitlines(),
            "tables": {"table": [{"way": way, **with_errors(each)} for way, each in rows.items()]},
        }
        found = self.measurement(images, values, names, settings, **beside)
        if evaluators:
            known = evaluators[DEGRADED].provenance()
            extractor = {each: known[each] for each in ("preprocessing", "extractor", "extractor_hash")}
            return found._replace(protocol={**found.protocol, **extractor})
        return found

    def evaluators(self, data: str) -> dict[str, Evaluator]:
        """An evaluator for each way, with a shared extractor."""
        if self.features is None:
            return {}
        features = self.features(data=data) if isinstance(self.features, partial) else self.features
        fid = FrechetDistance(num_resamples=0)
        return {way: Evaluator(features, [fid], self.features_batch_size) for way in WAYS}


class RestorationPass(ImagePass):
    """Restores images in all ways."""

    def __init__(
        self, model: DiffusionModel, t: int, images: Split, num_shown: int, evaluators: dict[str, Evaluator]
    ) -> None:
        each = torch.zeros(len(WAYS), len(FIDELITY), len(images), dtype=torch.float64)
        shown = torch.zeros(num_shown, 1 + len(WAYS), *model.image_shape)
        super().__init__(model, len(images), "restoration", each=each, shown=shown)
        self.t, self.evaluators = t, evaluators
        self.places = torch.linspace(0, len(images) - 1, num_shown).round().long()  # of those shown
        self.names: list[int] = images.images.indices[self.places].tolist()
        self.fid: dict[str, dict[str, Estimate]] = {key: {} for key in WAYS}

    def on_predict_start(self) -> None:
        super().on_predict_start()
        for evaluator in self.evaluators.values():
            evaluator.to(self.device)

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        model, images, rows = self.model, batch["image"], batch["position"]
        denoiser, cond = model.denoiser(model.predict_weights), model.condition.of(batch)
        x0 = model.encode(images)
        outputs = restorations(denoiser, model.sampler, x0, self.t, self.rng, batch["index"], cond)
        decoded = {way: model.codec.decode(x).clamp(-1, 1) for way, x in outputs.items()}
        for w, (way, x) in enumerate(decoded.items()):
            self.shared["each"][w][:, rows] = torch.stack([of(x, images).double() for of in FIDELITY.values()])
            if self.evaluators:
                self.evaluators[way].update_real(images, batch["index"])
                self.evaluators[way].update_fake(x, batch["index"])
        place, row = torch.nonzero(self.places.to(rows)[:, None] == rows, as_tuple=True)
        self.shared["shown"][place] = torch.stack([images, *decoded.values()], dim=1)[row].float()

    def on_predict_end(self) -> None:
        super().on_predict_end()
        for way, evaluator in self.evaluators.items():
            self.fid[way] = {name.rpartition("_")[0]: value for name, value in evaluator.compute().items()}

    def values(self, way: str) -> dict[str, Estimate]:
        """Values by name, with standard errors over the images."""
        found = zip(FIDELITY, self.shared["each"][WAYS.index(way)], strict=True)
        return {name: mean_and_error(each) for name, each in found} | self.fid[way]

    def gains(self, better: str, worse: str) -> dict[str, Estimate]:
        difference = self.shared["each"][WAYS.index(better)] - self.shared["each"][WAYS.index(worse)]
        return {name: mean_and_error(each) for name, each in zip(FIDELITY, difference, strict=True)}

    def picture(self) -> Tensor:
        heads = [f"{way}\n{self.values(way)['psnr'].value:.1f} dB" for way in WAYS]
        rows = [f"image {name}" for name in self.names]
        title = f"t = {self.t} of {self.model.sampler.process.T}"
        return sheet(list(self.shared["shown"]), rows, ["original", *heads], title)


def name_in_code(way: str) -> str:
    return way.replace(" ", "_")
