"""metric=restoration: real images are degraded, and restored in one step and by both algorithms of Cold Diffusion."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.diffusion.samplers.restoration import ALGORITHM_1, ALGORITHM_2, DEGRADED, WAYS, restorations
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics import compared
from ddpm.evaluation.model_metrics.compared import ComparedPass, OfCompared
from ddpm.evaluation.model_metrics.images import Split
from ddpm.evaluation.table import estimates_table, with_errors
from ddpm.metrics.fidelity import rmse

FIDELITY = {**compared.FIDELITY, "rmse": rmse}
GAINS = {"gain": (ALGORITHM_2, DEGRADED), "gain_over_algorithm_1": (ALGORITHM_2, ALGORITHM_1)}
"""Paired differences of two ways over images, whose standard error is smaller than that of either."""


@dataclass(frozen=True)
class Restoration(OfCompared):
    """t: the time to which images are degraded, 1..T; None: T. If a degradation is random, its z depends on the number
    of the image in the data set."""

    t: int | None

    def measure(self, run: ModelRun) -> Measurement:
        sampler, T = run.model.sampler, run.model.sampler.process.T
        t = T if self.t is None else check.integer("metric.restoration.t", self.t, low=1, high=T)
        if run.model.sample_condition.needs_images:
            raise ValueError("metric=restoration needs a model that is not conditioned on images, and this one is")
        images = self.opened(run)
        restored = RestorationPass(self, run, images, t).run(run.trainer, images)
        rows = {way: restored.means(restored.of_way(way)) | restored.fid[way] for way in WAYS}
        values = {f"{name}_{name_in_code(way)}": value for way in reversed(WAYS) for name, value in rows[way].items()}
        for gain, (better, worse) in GAINS.items():
            differences = restored.means(restored.of_way(better) - restored.of_way(worse))
            values |= {f"{name}_{gain}": value for name, value in differences.items()}
        settings = f"Restoration(t={t} of {T}, {len(sampler.times(t)) - 1} steps, sampler={sampler.describe()})"
        table = [{"way": way, **with_errors(each)} for way, each in rows.items()]
        beside = {"pictures": {"pictures": restored.picture(f"t = {t} of {T}")}, "tables": {"table": table}}
        names, lines = [*FIDELITY, *(["fid"] if restored.evaluators else [])], estimates_table(rows).splitlines()
        return restored.with_extractor(self.measurement(images, values, names, settings, lines=lines, **beside))


class RestorationPass(ComparedPass):
    """Restores images in all ways."""

    scope, ways = "restoration", WAYS

    def __init__(self, how: Restoration, run: ModelRun, images: Split, t: int) -> None:
        super().__init__(how, run, images, FIDELITY)
        self.t = t

    def made_of(self, batch: Batch) -> dict[str, Tensor]:
        model = self.model
        denoiser, cond = model.denoiser(model.predict_weights), model.condition.of(batch)
        x0 = model.encode(batch["image"])
        outputs = restorations(denoiser, model.sampler, x0, self.t, self.rng, batch["index"], cond)
        return {way: model.codec.decode(x).clamp(-1, 1) for way, x in outputs.items()}


def name_in_code(way: str) -> str:
    return way.replace(" ", "_")
