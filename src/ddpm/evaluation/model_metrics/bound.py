"""All terms of the variational bound for several variances, in one pass over images and all T times."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from ddpm.base.types import Batch, Prediction
from ddpm.diffusion.distributions import Gaussian
from ddpm.diffusion.losses.bound import bits_per_dim, likelihood_of, log_density, prior_term, step_term
from ddpm.diffusion.variance import FixedLarge, FixedSmall, LearnedRange, PublishedFixedLarge, Variance
from ddpm.evaluation.model_metrics.images import ImagePass, Split, mean_and_error
from ddpm.metrics.score import Estimate
from ddpm.model.diffusion_model import DiffusionModel


@dataclass
class Terms:
    """Terms of N = num_images images in bits per dimension. means: `[T + 1]`; row t is L_(t-1), and row 0 is L_T.

    totals: `[N]`, the bound of each image. squares: means of the squared terms. distortion: `[T + 1]`, mean squared
    error of x0 predicted at t, for pixels in [-1, 1]. prior_only: `[N]`, bits of each image under p(x_T).
    """

    num_images: int
    means: dict[str, Tensor]
    squares: dict[str, Tensor]
    totals: dict[str, Tensor]
    distortion: Tensor
    prior_only: Tensor

    def gain(self, name: str) -> Estimate:
        """Bits saved relative to p(x_T) as the model of the images (Sohl-Dickstein et al. 2015, table 1)."""
        return mean_and_error(self.prior_only - self.totals[name])

    def total(self, name: str) -> Estimate:
        """The bound and its standard error over images."""
        return mean_and_error(self.totals[name])

    def error(self, name: str) -> Tensor:
        """The standard error of each term, `[T + 1]`."""
        n = self.num_images
        spread = (self.squares[name] - self.means[name].square()).clamp(min=0)
        return (spread / max(n - 1, 1)).sqrt()


def large_variance(model: DiffusionModel) -> Variance:
    """The large variance of the model's sampler, which may be that of the published code."""
    own = getattr(model.sampler, "variance", None)
    return own if isinstance(own, PublishedFixedLarge) else FixedLarge()


class BoundPass(ImagePass):
    """Computes the terms of images at all times. floor: of the decoder's probabilities.

    The predicted x0 is clipped if the model clips it in sampling. The variance "optimal" is the best one that depends
    only on the time. It is fitted to these images, so its bound is slightly too low for few images. That of the decoder
    has no closed form, and is the best of 41 values.
    """

    def __init__(self, model: DiffusionModel, num_images: int, floor: float | None = None) -> None:
        process = model.sampler.process
        variances: dict[str, Variance | None] = {"model": None}  # for a process without variances
        if hasattr(process, "advance"):
            variances = {"small": FixedSmall(), "large": large_variance(model)}
            channels = model.latent_shape[0]
            if getattr(model.network, "out_channels", channels) == 2 * channels:
                variances["learned"] = LearnedRange()
        super().__init__(
            *(model, num_images, "bound"),
            sums=torch.zeros(len(variances), process.T + 1, 2, dtype=torch.float64),
            totals=torch.zeros(len(variances), num_images, dtype=torch.float64),
            errors=torch.zeros(num_images, process.T + 1, dtype=torch.float64),
            prior_only=torch.zeros(num_images, dtype=torch.float64),
            first=torch.zeros(num_images, 2, *model.latent_shape),  # x0 and its prediction at t = 1
        )
        self.variances = variances
        self.likelihood = likelihood_of(floor) if model.codec.bounded else log_density

    def take(self, batch: Batch, watch: Callable[[float], None]) -> None:
        model, process = self.model, self.model.sampler.process
        x0 = model.codec.encode(batch)
        rows, denoiser = batch["position"], model.denoiser(model.predict_weights)
        cond = model.condition.of(batch)
        prior = bits_per_dim(prior_term(process, x0.double()))
        self.shared["prior_only"][rows] = bits_per_dim(-self.likelihood(process.limit(x0.double()), x0.double()))
        for k in range(len(self.variances)):
            self.note(k, 0, rows, prior)
        for t in range(process.T, 0, -1):
            x_t = process.apply(x0, process.draw(x0, self.rng.at(t, batch["index"])), t)
            predicted = denoiser(x_t, t, cond)
            extra = None if predicted.extra is None else predicted.extra.double()
            prediction = Prediction(predicted.x0.double(), extra)
            for k, variance in enumerate(self.variances.values()):
                term = step_term(process, x0.double(), x_t.double(), prediction, t - 1, t, variance, self.likelihood)
                self.note(k, t, rows, bits_per_dim(term))
            self.shared["errors"][rows, t] = (prediction.x0 - x0).square().flatten(1).mean(1)
            watch(1 - (t - 1) / process.T)
        self.shared["first"][rows] = torch.stack([x0, predicted.x0], dim=1)

    def note(self, k: int, t: int, rows: Tensor, bits: Tensor) -> None:
        self.shared["sums"][k, t] += torch.stack([bits.sum(), bits.square().sum()])
        self.shared["totals"][k, rows] += bits

    def terms(self) -> Terms:
        n, sums = self.num_images, self.shared["sums"]
        found = Terms(n, {}, {}, {}, self.shared["errors"].mean(0), self.shared["prior_only"])
        for k, name in enumerate(self.variances):
            found.means[name], found.squares[name] = sums[k, :, 0] / n, sums[k, :, 1] / n
            found.totals[name] = self.shared["totals"][k]
        if "small" in self.variances:
            self.add_optimal(found)
        return found

    def add_optimal(self, found: Terms) -> None:
        """Add the bound of the optimal variance v, which is p plus the mean over images of e, where p is the posterior
        variance and e is an image's error of the posterior mean: each KL is (log(v / p) + (p + e) / v - 1) / 2."""
        process, T = self.model.sampler.process, self.model.sampler.process.T
        schedule, errors = process.schedule, self.shared["errors"]
        each = torch.zeros(self.num_images, T + 1, dtype=torch.float64)
        for t in range(2, T + 1):
            s = t - 1
            posterior = schedule.posterior_variance(s, t)
            scale = (schedule.alpha(s) * schedule.beta(s, t) / schedule.sigma(t) ** 2) ** 2
            best = posterior + scale * errors[:, t].mean()
            each[:, t] = (torch.log(best / posterior) + (posterior + scale * errors[:, t]) / best - 1) / 2 / math.log(2)
        x0, predicted = self.shared["first"].double().unbind(1)
        tried = float(errors[:, 1].mean()) * torch.logspace(-3, 1, 41, dtype=torch.float64)
        decoded = [bits_per_dim(-self.likelihood(Gaussian(predicted, float(v)), x0)) for v in tried]
        each[:, 1] = min(decoded, key=lambda bits: float(bits.mean()))
        each[:, 0] = bits_per_dim(prior_term(process, x0))
        found.means["optimal"], found.squares["optimal"] = each.mean(0), each.square().mean(0)
        found.totals["optimal"] = each.sum(1)


def bound_terms(model: DiffusionModel, images: Split, trainer: Trainer, floor: float | None = None) -> Terms:
    return BoundPass(model, len(images), floor).run(trainer, images).terms()
