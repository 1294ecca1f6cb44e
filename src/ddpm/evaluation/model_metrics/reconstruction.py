"""metric=reconstruction: how near a first stage comes to images, and how it uses its latent.

Rombach et al. 2022, table 8.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base.types import Batch
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.compared import FIDELITY, ComparedPass, OfCompared
from ddpm.evaluation.model_metrics.images import Split
from ddpm.evaluation.table import estimates_table
from ddpm.metrics.perceptual import LPIPS, VGG16
from ddpm.metrics.score import Estimate

WAY = "reconstruction"


@dataclass(frozen=True)
class ReconstructionQuality(OfCompared):
    """rFID, PSNR, SSIM and LPIPS of reconstructions, from means of z; and the use of the latent.

    With a codebook: the share of its codes that are used, and their perplexity. With a Gaussian latent: KL in nats a
    number of z, and the standard deviation of z in each channel, sqrt(Var(mean) + E[variance]). weights: VGG-16 of
    LPIPS, None: torch hub's cache, and no LPIPS if it is not there.
    """

    weights: str | None

    needs_samples: ClassVar[bool] = False
    idle: ClassVar = (
        *("schedule", "noise", "process", "sampler", "timestep_spacing", "variance"),
        *("clip", "guidance", "text", "seed"),
    )

    def measure(self, run: ModelRun) -> Measurement:
        if not getattr(run.model.best_network, "reconstructs", False):
            name = type(run.model.best_network).__name__
            raise ValueError(f"metric=reconstruction needs a first stage, but model={name} is none; choose metric=fid")
        lines: list[str] = []
        fidelity: dict[str, Any] = {**FIDELITY}
        if self.weights is None and not VGG16.path.is_file():
            lines.append(
                f"skipped: LPIPS, because {VGG16.path} does not exist; give metric.reconstruction.weights=PATH of "
                "torchvision's VGG-16, or train once with perceptual=lpips"
            )
        else:
            fidelity["lpips"] = LPIPS(self.weights)
        images = self.opened(run)
        seen = ReconstructionPass(self, run, images, fidelity).run(run.trainer, images)
        values, title = seen.values(), f"factor {seen.network.factor}, {seen.network.z_channels} channels"
        names = [*fidelity, *(["rfid"] if seen.evaluators else []), "latent"]
        beside = {
            "pictures": {"reconstructions": seen.picture(title)},
            "lines": [*estimates_table({"reconstructions": values}).splitlines(), *lines],
        }
        settings = "Reconstruction(mean of z)"
        if "lpips" in fidelity and fidelity["lpips"].weights_hash != VGG16.sha256:
            settings = f"Reconstruction(mean of z, weights_sha256={fidelity['lpips'].weights_hash})"
        return seen.with_extractor(self.measurement(images, values, names, settings, **beside))


class ReconstructionPass(ComparedPass):
    """Reconstructs images. shared: `use` is what the network counts of its latents."""

    scope, ways = "reconstruction", (WAY,)

    def __init__(self, how: ReconstructionQuality, run: ModelRun, images: Split, fidelity: Mapping[str, Any]) -> None:
        network: Any = run.model.weights(run.model.predict_weights)
        use = torch.zeros(network.use_shape, dtype=torch.float64)
        super().__init__(how, run, images, fidelity, use=use)
        self.network = network

    def on_predict_start(self) -> None:
        super().on_predict_start()
        if "lpips" in self.fidelity:
            self.fidelity["lpips"].to(self.device)

    def made_of(self, batch: Batch) -> dict[str, Tensor]:
        moments = self.network.moments(batch["image"])
        self.shared["use"] += self.network.use(moments)
        return {WAY: self.network.decode(self.network.mean(moments)).float().clamp(-1, 1)}

    def values(self) -> dict[str, Estimate]:
        rfid = {f"r{name}": value for name, value in self.fid[WAY].items()}
        latent = {name: Estimate(value, None) for name, value in self.network.describe_use(self.shared["use"]).items()}
        return {**self.means(self.of_way(WAY)), **rfid, **latent}
