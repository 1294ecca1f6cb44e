"""Base classes of model metrics that compare real images with what a model makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.images import ImagePass, OfImages, Split, mean_and_error
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.extractors.usual import features_of
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.fidelity import psnr, ssim
from ddpm.metrics.score import Estimate
from ddpm.tasks.sheet import sheet

HIGHEST = 100.0
"""PSNR in dB of an image that is met exactly, so that means stay finite."""
FIDELITY = {"psnr": lambda x, y: psnr(x, y).clamp(max=HIGHEST), "ssim": ssim}


@dataclass(frozen=True)
class OfCompared(OfImages):
    """num_shown: number of images in the picture. features: extractor of FID; None: no FID. features_batch_size: images
    per pass of it."""

    num_shown: check.PositiveInt
    features: Any
    features_batch_size: int


class ComparedPass(ImagePass):
    """Makes images of real ones in several ways. fidelity: measures of two images. The ways share one extractor."""

    scope: ClassVar[str]
    ways: ClassVar[Sequence[str]]

    def __init__(
        self, how: OfCompared, run: ModelRun, images: Split, fidelity: Mapping[str, Any], **shared: Tensor
    ) -> None:
        each = torch.zeros(len(self.ways), len(fidelity), len(images), dtype=torch.float64)
        num_shown = min(how.num_shown, len(images))
        shown = torch.zeros(num_shown, 1 + len(self.ways), *run.model.image_shape)
        super().__init__(run.model, len(images), self.scope, each=each, shown=shown, **shared)
        self.fidelity, self.evaluators = fidelity, dict[str, Evaluator]()
        if how.features is not None:
            features = features_of(how.features, str(run.config.data.get("name", "")))
            scores, size = [FrechetDistance(num_resamples=0)], how.features_batch_size
            self.evaluators = {way: Evaluator(features, scores, size) for way in self.ways}
        self.places = torch.linspace(0, len(images) - 1, num_shown).round().long()  # of those shown
        self.names: list[int] = images.images.indices[self.places].tolist()
        self.fid: dict[str, dict[str, Estimate]] = {way: {} for way in self.ways}

    def made_of(self, batch: Batch) -> dict[str, Tensor]:
        """Images in [-1, 1] by way."""
        raise NotImplementedError

    def on_predict_start(self) -> None:
        super().on_predict_start()
        for evaluator in self.evaluators.values():
            evaluator.to(self.device)

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        images, rows, made = batch["image"], batch["position"], self.made_of(batch)
        for w, (way, x) in enumerate(made.items()):
            self.shared["each"][w][:, rows] = torch.stack([of(x, images).double() for of in self.fidelity.values()])
            if self.evaluators:
                self.evaluators[way].update_real(images, batch["index"])
                self.evaluators[way].update_fake(x, batch["index"])
        place, row = torch.nonzero(self.places.to(rows)[:, None] == rows, as_tuple=True)
        self.shared["shown"][place] = torch.stack([images, *made.values()], dim=1)[row].float()

    def on_predict_end(self) -> None:
        super().on_predict_end()
        for way, evaluator in self.evaluators.items():
            self.fid[way] = {name.rpartition("_")[0]: value for name, value in evaluator.compute().items()}

    def of_way(self, way: str) -> Tensor:
        """float64 `[measures, N]`."""
        return self.shared["each"][self.ways.index(way)]

    def means(self, each: Tensor) -> dict[str, Estimate]:
        """Values by name, with standard errors over the images. each: float64 `[measures, N]`."""
        return {name: mean_and_error(of_images) for name, of_images in zip(self.fidelity, each, strict=True)}

    def picture(self, title: str) -> Tensor:
        heads = [f"{way}\n{self.means(self.of_way(way))['psnr'].value:.1f} dB" for way in self.ways]
        return sheet(list(self.shared["shown"]), [f"image {name}" for name in self.names], ["original", *heads], title)

    def with_extractor(self, found: Measurement) -> Measurement:
        """With what the protocol of a result says of the extractor, which all evaluators share."""
        known = self.evaluators[self.ways[0]].provenance() if self.evaluators else {}
        extractor = {each: known[each] for each in ("preprocessing", "extractor", "extractor_hash") if known}
        return found._replace(protocol={**found.protocol, **extractor})
