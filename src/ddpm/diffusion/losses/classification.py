"""Cross-entropy, to train a classifier of noisy images for guidance (Dhariwal and Nichol 2021, section 4.1)."""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.base.rng import Draws
from ddpm.base.types import Cond, LossTerms
from ddpm.diffusion.conditions.base import LABEL
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.process import ForwardProcess
from ddpm.diffusion.time_sampler import TimeSampler


@dataclass(frozen=True)
class Classification:
    """total = -log p(label | x_t) in nats, where the network's raw output is the logits `[B, K]`.

    parts["accuracy"]: 1 if the largest logit is that of the label, else 0. The network does not get the label.
    """

    process: ForwardProcess
    time_sampler: TimeSampler

    needs: ClassVar[tuple[str, str]] = (
        "classifies",
        "loss=classification needs a classifier, such as model=classifier_tiny",
    )

    def __call__(self, denoiser: NetworkDenoiser, x0: Tensor, cond: Cond, draws: Draws) -> LossTerms:
        """x0: `[B, C, H, W]` in [-1, 1]; cond["label"]: int64 `[B]`, at least 0."""
        if LABEL not in cond:
            raise ValueError("loss=classification needs labels: choose cond=class")
        label = cond[LABEL]
        t = self.time_sampler(draws, self.process.T)
        x_t = self.process.apply(x0, self.process.draw(x0, draws), t)
        logits = denoiser.raw(x_t, t, {name: value for name, value in cond.items() if name != LABEL})
        if logits.ndim != 2:
            name = type(denoiser.network).__name__
            check.fail("model", name, "a classifier with loss=classification, as model=classifier_tiny")
        accuracy = (logits.argmax(1) == label).to(logits.dtype)
        total = F.cross_entropy(logits, label, reduction="none")
        return LossTerms(total, t, {"accuracy": accuracy}, self.time_sampler.importance(t, self.process.T))
