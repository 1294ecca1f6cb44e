"""Guidance by the gradient of a classifier of noisy images (Dhariwal and Nichol 2021, section 4)."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Annotated

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond, Prediction, Time
from ddpm.diffusion.coefficients import weighted_sum
from ddpm.diffusion.conditions.base import LABEL
from ddpm.diffusion.denoiser import Denoiser
from ddpm.diffusion.gaussian import GaussianDiffusion

Classifier = Callable[[Tensor, Time], Tensor]
"""Maps x_t `[B, C, H, W]` and its time to the logits of the classes, `[B, K]`."""


@dataclass(frozen=True)
class ClassifierGuided:
    """Guidance by g = scale * the gradient of log p(label | x_t). A label of -1 has no guidance.

    form: where g is applied. `mean`: variance * g is added to the mean of the reverse step (algorithm 1), for a sampler
    that applies a guidance gradient. `epsilon`: eps - sigma_t g replaces eps (algorithm 2), so x0 becomes
    x0 + sigma_t^2 / alpha_t g, for any sampler. null: `mean` if the sampler supports it, as in the paper.
    at: where g is computed in the form `mean`: at `x_t` as in the paper's code, or at `mean`, as in its formula.
    denoiser_takes_label: whether the denoiser is conditioned on the label too. uses_guidance_gradient: whether the
    sampler's step applies g.
    """

    denoiser: Denoiser
    classifier: Classifier
    process: GaussianDiffusion
    scale: check.NonNegativeNumber
    form: Annotated[str, check.words("mean", "epsilon")] | None
    at: Annotated[str, check.words("x_t", "mean")]
    denoiser_takes_label: bool
    uses_guidance_gradient: bool

    def __post_init__(self) -> None:
        check.fields(self)
        if not isinstance(self.process, GaussianDiffusion):
            name = type(self.process).__name__
            raise ValueError(f"guidance=classifier needs process=gaussian, not {name}")
        if self.form == "mean" and not self.uses_guidance_gradient:
            raise ValueError(
                "guidance.form=mean moves the mean of an ancestral step, which this sampler does not make; "
                "use sampler=ancestral, or guidance.form=epsilon"
            )
        if self.at == "mean" and not self.in_mean:
            raise ValueError("guidance.at=mean has no effect with guidance.form=epsilon; leave it out")
        if not self.in_mean and self.process.schedule.alpha_bar[-1] == 0:
            raise ValueError(
                "guidance.form=epsilon cannot be used with a schedule without signal at T (schedule=jsd, zero terminal "
                "SNR), where eps does not determine x0; use sampler=ancestral with guidance.form=mean"
            )

    @property
    def in_mean(self) -> bool:
        return self.form == "mean" or (self.form is None and self.uses_guidance_gradient)

    def __call__(self, x_t: Tensor, t: Time, cond: Cond) -> Prediction:
        if LABEL not in cond:
            raise ValueError("guidance=classifier needs a class: choose class=...")
        label = cond[LABEL]
        known = cond if self.denoiser_takes_label else {name: each for name, each in cond.items() if name != LABEL}
        prediction = self.denoiser(x_t, t, known)
        if self.scale == 0:
            return prediction

        def guidance_gradient(mean: Tensor) -> Tensor:
            return self.gradient(x_t if self.at == "x_t" else mean, t, label).to(mean.dtype)

        if self.in_mean:
            return replace(prediction, guidance_gradient=guidance_gradient)
        push = self.process.schedule.sigma(t) ** 2 / self.process.schedule.alpha(t)
        gradient = self.gradient(x_t, t, label).to(x_t.dtype)
        return replace(prediction, x0=weighted_sum(1.0, prediction.x0, push, gradient), unclipped=None)

    def gradient(self, x: Tensor, t: Time, label: Tensor) -> Tensor:
        """scale * grad log p(label | x), `[B, C, H, W]`, in float32 at least; 0 for a label of -1.

        Sampling disables gradients. Lightning uses inference mode, whose tensors must be copied to have gradients.
        """
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(x.device.type, enabled=False):
            x = x.detach().to(torch.promote_types(x.dtype, torch.float32), copy=True).requires_grad_()
            t = t if isinstance(t, int) else t.clone()
            log_p = self.classifier(x, t).log_softmax(1).gather(1, label.clamp(min=0)[:, None])[:, 0]
            (gradient,) = torch.autograd.grad(torch.where(label < 0, 0.0, log_p).sum(), x)
        return self.scale * gradient
