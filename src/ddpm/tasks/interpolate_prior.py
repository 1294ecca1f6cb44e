"""Spherical interpolation between the x_T of samples (Song et al. 2021, section 5.3 and figure 6)."""

from dataclasses import dataclass
from itertools import pairwise

import torch

from ddpm.base import check
from ddpm.diffusion.interpolation import spherical
from ddpm.diffusion.inversion import draws_noise
from ddpm.tasks.base import Model, Outcome, gaussian
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class InterpolatePrior:
    """samples: sample numbers; each row interpolates from one to the next. The ends equal samples of
    `task=generate`."""

    samples: list[int]
    num_mixtures: int

    def __post_init__(self) -> None:
        if not isinstance(self.samples, list | tuple) or len(self.samples) < 2:
            check.fail("task.samples", self.samples, "two or more sample numbers, for example [0, 1, 2]")
        for number in self.samples:
            check.non_negative_int("task.samples", number)
        check.integer("task.num_mixtures", self.num_mixtures, low=2)

    def __call__(self, model: Model) -> Outcome:
        gaussian(model, "interpolate_prior")
        refuse_noise(model, "interpolate_prior")
        shares, pairs = torch.linspace(0, 1, self.num_mixtures), list(pairwise(self.samples))
        x_T = model.prior(model.ids(*self.samples))
        x = torch.cat([spherical(x_T[i], x_T[i + 1], shares.to(x_T.device)) for i in range(len(pairs))])
        outputs = model.sampled(x, torch.zeros(len(x), dtype=torch.int64, device=model.device), model.T)
        outputs = outputs.unflatten(0, (len(pairs), self.num_mixtures))
        drawn = sheet(
            list(outputs),
            rows=[f"samples\n{one} to {other}" for one, other in pairs],
            columns=[f"{share:g}" for share in shares.round(decimals=3).tolist()],
            title="from one x_T to another, by the share of the second",
        )
        return Outcome({"interpolate_prior": drawn}, {"interpolations": outputs}, {"samples": list(self.samples)})


def refuse_noise(model: Model, task: str) -> None:
    """Raise ValueError unless the sampler is deterministic."""
    if draws_noise(model.sampler):
        raise ValueError(
            f"task={task} needs a deterministic sampler, but {model.sampler.describe()} adds noise; add sampler=ddim"
        )
