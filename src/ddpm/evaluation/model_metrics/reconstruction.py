"""metric=reconstruction: how near a first stage comes to images, and how it uses its latent (Rombach et al. 2022, table
8)."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Batch
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.images import ImagePass, OfImages, Split, mean_and_error
from ddpm.evaluation.table import estimates_table
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.fidelity import psnr, ssim
from ddpm.metrics.perceptual import LPIPS, VGG16
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel
from ddpm.tasks.sheet import sheet

HIGHEST = 100.0
"""dB of an image that is met exactly, so that a mean is still a number."""


@dataclass(frozen=True)
class ReconstructionQuality(OfImages):
    """rFID, PSNR, SSIM and LPIPS of reconstructions, from means of z; and the use of the latent.

    With a codebook: the share of its codes that are used, and their perplexity. With a Gaussian latent: KL in nats a
    number of z, and the standard deviation of z in each channel, sqrt(Var(mean) + E[variance]). num_shown: images in
    the picture. features: of rFID, and features_batch_size images at once; None: no rFID. weights: VGG-16 of LPIPS,
    None: torch hub's cache, and no LPIPS if it is not there.
    """

    num_shown: int
    features: Any
    features_batch_size: int
    weights: str | None

    needs_samples: ClassVar[bool] = False
    idle: ClassVar = (
        *(
            "schedule",
            "noise",
            "process",
            "sampler",
            "timestep_spacing",
            "variance",
            "clip",
            "guidance",
            "text",
            "seed",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check.positive_int("metric.reconstruction.num_shown", self.num_shown)

    def measure(self, run: ModelRun) -> Measurement:
        if not getattr(run.model.best_network, "reconstructs", False):
            name = type(run.model.best_network).__name__
            raise ValueError(f"metric=reconstruction needs a first stage, but model={name} is none; choose metric=fid")
        lines: list[str] = []
        fidelity: dict[str, Any] = {"psnr": lambda x, y: psnr(x, y).clamp(max=HIGHEST), "ssim": ssim}
        if self.weights is None and not VGG16.path.is_file():
            lines.append(
                f"skipped: LPIPS, because {VGG16.path} does not exist; give metric.reconstruction.weights=PATH of "
                "torchvision's VGG-16, or train once with perceptual=lpips"
            )
        else:
            fidelity["lpips"] = LPIPS(self.weights)
        images = self.opened(run)
        evaluator = self.evaluator(str(run.config.data.get("name", "")))
        seen = ReconstructionPass(run.model, images, min(self.num_shown, len(images)), evaluator, fidelity)
        values = seen.run(run.trainer, images).values()
        names = [*fidelity, *(["rfid"] if evaluator else []), "latent"]
        beside = {
            "pictures": {"reconstructions": seen.picture()},
            "lines": [*estimates_table({"reconstructions": values}).splitlines(), *lines],
        }
        settings = "Reconstruction(mean of z)"
        if "lpips" in fidelity and fidelity["lpips"].weights_hash != VGG16.sha256:
            settings = f"Reconstruction(mean of z, weights_sha256={fidelity['lpips'].weights_hash})"
        found = self.measurement(images, values, names, settings, **beside)
        if evaluator:
            known = evaluator.provenance()
            extractor = {each: known[each] for each in ("preprocessing", "extractor", "extractor_hash")}
            return found._replace(protocol={**found.protocol, **extractor})
        return found

    def evaluator(self, data: str) -> Evaluator | None:
        if self.features is None:
            return None
        features = self.features(data=data) if isinstance(self.features, partial) else self.features
        return Evaluator(features, [FrechetDistance(num_resamples=0)], self.features_batch_size)


class ReconstructionPass(ImagePass):
    """Reconstructs images. shared: a row of `each` is of one measure; `use` is what `latent_use` counts."""

    def __init__(
        self,
        model: DiffusionModel,
        images: Split,
        num_shown: int,
        evaluator: Evaluator | None,
        fidelity: Mapping[str, Any],
    ) -> None:
        network: Any = model.weights(model.predict_weights)
        each = torch.zeros(len(fidelity), len(images), dtype=torch.float64)
        use = torch.zeros(network.use_shape, dtype=torch.float64)
        shown = torch.zeros(num_shown, 2, *model.image_shape)
        super().__init__(model, len(images), "reconstruction", each=each, use=use, shown=shown)
        self.network, self.fidelity, self.evaluator = network, fidelity, evaluator
        self.places = torch.linspace(0, len(images) - 1, num_shown).round().long()  # of those shown
        self.names: list[int] = images.images.indices[self.places].tolist()
        self.rfid: dict[str, Estimate] = {}

    def on_predict_start(self) -> None:
        super().on_predict_start()
        for part in (self.evaluator, self.fidelity.get("lpips")):
            if part is not None:
                part.to(self.device)

    def take(self, batch: Batch, watch: Any) -> None:
        images, rows = batch["image"], batch["position"]
        moments = self.network.moments(images)
        found = self.network.decode(self.network.mean(moments)).float().clamp(-1, 1)
        self.shared["each"][:, rows] = torch.stack([of(found, images).double() for of in self.fidelity.values()])
        self.shared["use"] += self.network.use(moments)
        if self.evaluator:
            self.evaluator.update_real(images, batch["index"])
            self.evaluator.update_fake(found, batch["index"])
        place, row = torch.nonzero(self.places.to(rows)[:, None] == rows, as_tuple=True)
        self.shared["shown"][place] = torch.stack([images, found], dim=1)[row].float()

    def on_predict_end(self) -> None:
        super().on_predict_end()
        if self.evaluator:
            self.rfid = {f"r{name.rpartition('_')[0]}": value for name, value in self.evaluator.compute().items()}

    def values(self) -> dict[str, Estimate]:
        found = zip(self.fidelity, self.shared["each"], strict=True)
        latent = {name: Estimate(value, None) for name, value in self.network.describe_use(self.shared["use"]).items()}
        return {**{name: mean_and_error(each) for name, each in found}, **self.rfid, **latent}

    def picture(self) -> Tensor:
        names = [f"image {name}" for name in self.names]
        psnr = self.values()["psnr"].value
        title = f"factor {self.network.factor}, {self.network.z_channels} channels"
        return sheet(list(self.shared["shown"]), names, ["original", f"reconstruction\n{psnr:.1f} dB"], title)
