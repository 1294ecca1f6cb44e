"""task=anomaly: images are diffused to a time t and restored; differences indicate anomalies (AnoDDPM)."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any

import torch
from lightning.pytorch.utilities import rank_zero_only
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch, SplitName
from ddpm.config import build
from ddpm.data.anomalies.base import AnomalySet, AnomalySource
from ddpm.data.datamodule import ImageData, ImageDataModule
from ddpm.data.pixels import MemoryPixels
from ddpm.diffusion.samplers.base import Sampler
from ddpm.diffusion.samplers.restoration import restore_repeatedly, squared_error_map
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.anomaly_baselines import baselines
from ddpm.evaluation.model_metrics.anomaly_values import MapScorer, anomaly_picture, anomaly_rows, anomaly_table
from ddpm.evaluation.model_metrics.images import ImagePass, PredictedImages
from ddpm.metrics.evaluator import count_name
from ddpm.model.diffusion_model import DiffusionModel

ALL_TIMES = "mean of times"


@dataclass(frozen=True)
class Anomaly(check.Checked):
    """anomalies: source of the images and masks. num_images: how many are used, evenly spread; None: all. split: of the
    model's data, for images in which lesions are simulated; the model must not be trained on it.

    times: to which images are diffused, 1..T; None: T / 4, as in the paper. A map is the squared error of pixels in
    [-1, 1]: of the mean of `repeats` restorations (average=restorations), or the mean of their squared errors
    (average=maps). For several times, the mean of their maps gives the values without a time in their name.

    image_score: score of an image: the max of its map, its mean, or the mean of its highest hundredth (top). threshold:
    of map values; None: chosen by the best Dice on every second image of a kind, and measured on the others.

    frequencies: of simplex noise, each tested at the first time. num_bootstrap: resamples of the images, for errors and
    95 % intervals. Each image's noise depends only on its number, the time and the repeat.
    """

    num_images: check.PositiveInt | None
    split: SplitName
    batch_size: check.PositiveInt
    anomalies: AnomalySource
    times: Sequence[int] | None
    repeats: check.PositiveInt
    average: Annotated[str, check.words("restorations", "maps")]
    image_score: Annotated[str, check.words("max", "mean", "top")]
    threshold: check.NonNegativeNumber | None
    frequencies: Sequence[check.PositiveNumber] | None
    num_bootstrap: Annotated[int, check.integers(2)]
    seed: check.NonNegativeInt
    num_shown: check.PositiveInt

    def measure(self, run: ModelRun) -> Measurement:
        model = run.model
        if model.condition.needs_images or (model.condition.network_settings and model.condition.dropout == 0):
            raise ValueError(
                "task=anomaly gives the model no condition, and this model was never trained without one; train with "
                "cond=none, or with a class and cond.dropout=0.1"
            )
        times = self.chosen_times(model.sampler.process.T)
        samplers = {f"frequency {f:g}": at_frequency(model.sampler, f) for f in self.frequencies or ()}
        data = build.data(run.config, run.model.condition)
        rank_zero_only(data.prepare_data)()
        found = self.read(data, model.image_shape)
        scorer = MapScorer(found, self.image_score, self.threshold, self.num_bootstrap, self.seed)
        main = self.maps(run, found, model.sampler, times)
        maps = {f"t = {t}": main.shared["maps"][row] for row, t in enumerate(times)}
        name = f"t = {times[0]}"
        if len(times) > 1:
            name, maps[ALL_TIMES] = ALL_TIMES, main.shared["maps"].mean(0)
        for title, sampler in samplers.items():
            maps[f"t = {times[0]}, {title}"] = self.maps(run, found, sampler, times[:1]).shared["maps"][0]
        maps |= baselines(data.split("train"), found)
        rows = {title: scorer.values(each) for title, each in maps.items()}
        count = count_name(len(found))
        estimates = {f"{key}_{count}": value.estimate for key, value in rows[name].items()}
        estimates |= {f"auroc_pixel_{kind}_{count}": each.estimate for kind, each in scorer.by_kind(maps[name]).items()}
        others = [title for title in rows if title != name]
        estimates |= {
            f"auroc_pixel_{name_in_code(title)}_{count}": rows[title]["auroc_pixel"].estimate for title in others
        }
        undefined = [key for key, estimate in estimates.items() if not math.isfinite(estimate.value)]
        notes = [f"{key} has no value: its denominator is 0, for example if no pixel is found" for key in undefined]
        estimates = {key: estimate for key, estimate in estimates.items() if key not in undefined}
        threshold = scorer.threshold_of(maps[name])
        settings = (
            f"Anomaly(times={times}, repeats={self.repeats}, average={self.average}, image_score={self.image_score}, "
            f"threshold={self.threshold}, frequencies={self.frequencies}, num_bootstrap={self.num_bootstrap}, "
            f"seed={self.seed}, sampler={model.sampler.describe()}, steps={model.sampler.steps}, "
            f"baselines_from={data.content_hash('train')})"
        )
        names = dict.fromkeys(("auroc_pixel", "aupro", "auroc_image"), settings)
        protocol = {"data": found.name, "data_hash": found.digest, "num_generated": len(found), "scores": names}
        title = f"{name} of {model.sampler.process.T}"
        shown = anomaly_picture(found, main.shared["first"], main.places, maps[name], threshold, title)
        lines, tables = [*notes, *anomaly_table(rows)], {"table": anomaly_rows(rows)}
        return Measurement(estimates, protocol, {"pictures": shown}, lines, tables)

    def chosen_times(self, T: int) -> list[int]:
        if self.times is None:
            return [max(1, round(T / 4))]
        if not self.times:
            check.fail("metric.anomaly.times", self.times, "one time or more, as [250], or null")
        return [check.integer("metric.anomaly.times", t, low=1, high=T) for t in self.times]

    def read(self, data: ImageDataModule, shape: tuple[int, int, int]) -> AnomalySet:
        def healthy() -> tuple[Tensor, Tensor]:
            if self.split == "train":
                raise ValueError(
                    "metric.anomaly.split=train: the model was trained on these images; hold some out with "
                    "data.num_val in training, and use split=val"
                )
            images = data.split(self.split, self.num_images)
            (pixels,) = images.read([torch.arange(len(images))])
            return pixels, images.indices

        found = self.anomalies.read(shape, healthy)
        return found.first(self.num_images) if self.num_images and self.num_images < len(found) else found

    def maps(self, run: ModelRun, found: AnomalySet, sampler: Sampler, times: list[int]) -> "AnomalyPass":
        places, no_labels = torch.arange(len(found)), torch.full((len(found),), -1)
        images = PredictedImages(ImageData(MemoryPixels(found.images), no_labels, places), self.batch_size)
        outputs = AnomalyPass(run.model, sampler, found, times, self).run(run.trainer, images)
        bad = ~outputs.shared["maps"].isfinite().all(0).flatten(1).all(1)
        if bad.any():
            raise ValueError(
                f"{int(bad.sum())} of {len(bad)} anomaly maps are not finite: the model gives NaN or infinity there; "
                "try trainer.precision=32-true, or an earlier checkpoint"
            )
        return outputs


class AnomalyPass(ImagePass):
    """Computes the anomaly maps. shared: "maps", float32 `[times, N, H, W]`.

    "first", `[num_shown, 3, C, H, W]`: the images at `places`, noised to the first time, and restored.
    """

    def __init__(self, model: DiffusionModel, sampler: Sampler, found: AnomalySet, times: list[int], how: Anomaly):
        places = shown_places(found, how.num_shown)
        maps, first = torch.zeros(len(times), *found.masks.shape), torch.zeros(len(places), 3, *model.image_shape)
        super().__init__(model, len(found), "anomaly", maps=maps, first=first)
        self.sampler, self.found, self.times, self.how, self.places = sampler, found, times, how, places

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        images, rows, codec = batch["image"], batch["position"], self.model.codec
        ids = self.found.numbers.to(rows.device)[rows]
        denoiser, condition = self.model.denoiser(self.model.predict_weights), self.model.condition
        cond = condition.unconditional(condition.of(batch))  # a condition could reveal the anomaly of an image
        x0 = self.model.encode(images)
        for number, t in enumerate(self.times):
            pairs = list(restore_repeatedly(denoiser, self.sampler, x0, t, self.rng, ids, cond, self.how.repeats))
            outputs = torch.stack([codec.decode(pair.restored) for pair in pairs])
            maps = torch.stack([squared_error_map(images, each) for each in outputs]).mean(0)
            if self.how.average == "restorations":
                maps = squared_error_map(images, outputs.mean(0))
            self.shared["maps"][number, rows] = maps.float()
            if number == 0:
                place, row = torch.nonzero(self.places.to(rows)[:, None] == rows, as_tuple=True)
                shown = torch.stack([images, codec.decode(pairs[0].degraded), outputs.mean(0)], dim=1)
                self.shared["first"][place] = shown[row].float()


def shown_places(found: AnomalySet, num: int) -> Tensor:
    """Places of up to `num` images, int64: about equally many of each kind, spread over all images."""
    of_kind = [[i for i, kind in enumerate(found.kinds) if kind == each] for each in sorted(set(found.kinds))]
    share = -(-num // len(of_kind))
    turns = [places[len(places) * turn // share] for turn in range(share) for places in of_kind]
    return torch.tensor(sorted(set(turns[:num]), key=lambda place: (found.kinds[place], place)))


def at_frequency(sampler: Sampler, frequency: float) -> Sampler:
    process: Any = sampler.process
    noise: Any = getattr(process, "noise", None)
    if not hasattr(noise, "frequency"):
        raise ValueError(
            f"metric.anomaly.frequencies has no effect on noise={type(noise).__name__}; leave it out, or train with "
            "noise=simplex"
        )
    return replace(sampler, process=replace(process, noise=replace(noise, frequency=frequency)))


def name_in_code(title: str) -> str:
    return title.replace(" = ", "").replace(",", "").replace(" ", "_").replace("-", "_")
