"""Between samples: along great circles from the noise of one to that of the next (Song et al. 2021, section 5.3)."""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Annotated

import torch

from ddpm.base import check
from ddpm.diffusion.interpolation import InterpolatedRng
from ddpm.diffusion.samplers.step_inputs import LATENT
from ddpm.tasks.base import Model, Outcome, gaussian
from ddpm.tasks.sheet import sheet

STREAMS = {"all": None, "prior": ("prior",), "latent": (LATENT,)}


@dataclass(frozen=True)
class InterpolatePrior:
    """samples: numbers of samples, a row from each to the next. Its ends are those of `task=generate`.

    of: what changes along a row: "prior" is x_T, "latent" what a GAN's generator draws x0 from at each step, "all"
    both and the noise of a sampler's steps. What does not change is that of the row's first sample.
    """

    samples: list[int]
    num_mixtures: Annotated[int, check.integers(2)]
    of: Annotated[str, check.words(*STREAMS)] = "all"

    def __post_init__(self) -> None:
        if not isinstance(self.samples, list | tuple) or len(self.samples) < 2:
            check.fail("task.samples", self.samples, "two or more numbers of samples, as [0, 1, 2]")
        for number in self.samples:
            check.non_negative_int("task.samples", number)
        check.fields(self, "task.")

    def __call__(self, model: Model) -> Outcome:
        gaussian(model, "interpolate_prior")
        if self.of == "latent" and LATENT not in model.sampler.step_inputs(None, model.rng.at(0, model.ids(0))):
            raise ValueError("task.of=latent needs a model that draws x0 from a latent, as a GAN; take task.of=prior")
        shares, pairs = torch.linspace(0, 1, self.num_mixtures), list(pairwise(self.samples))
        first, second = (model.ids(*ends).repeat_interleave(len(shares)) for ends in zip(*pairs, strict=True))
        along = shares.to(model.device).repeat(len(pairs))
        ends = {"first": first, "second": second, "shares": along, "streams": STREAMS[self.of]}
        rng = InterpolatedRng(model.rng.seed, model.rng.scope, model.rng.compiled, **ends)
        between, rows = replace(model, rng=rng), torch.arange(len(along), device=model.device)
        outputs = between.sampled(between.prior(rows), rows, model.T)
        outputs = outputs.unflatten(0, (len(pairs), self.num_mixtures))
        names = [f"samples\n{one} to {other}" for one, other in pairs]
        columns = [f"{share:g}" for share in shares.round(decimals=3).tolist()]
        drawn = sheet(list(outputs), names, columns, "from one sample to another, by the share of the second")
        return Outcome({"interpolate_prior": drawn}, {"interpolations": outputs}, {"samples": list(self.samples)})
