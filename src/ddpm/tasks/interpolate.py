"""Interpolation between two real images: diffuse both to t, interpolate, denoise.

Ho et al. 2020, section 4.4 and figure 8.
"""

from dataclasses import dataclass
from typing import Annotated

import torch

from ddpm.base import check
from ddpm.diffusion.interpolation import linear
from ddpm.tasks.base import ImageTask, Model, Outcome, gaussian
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class Interpolate(ImageTask):
    """images: two image numbers, or 2. times: rising, one row each; None: 1/8, 1/4, 1/2, 3/4 and 1 times T.

    All images of a row share the noise of diffusion and sampler, as in the paper. Both ends also share the noise of
    diffusion. The paper's code draws two, whose mixture has half of the variance.
    """

    times: list[int] | None
    num_mixtures: Annotated[int, check.integers(2)]

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.images if isinstance(self.images, int) else len(self.images)) != 2:
            check.fail("task.images", self.images, "two image numbers, for example [3, 17], or 2")

    def __call__(self, model: Model) -> Outcome:
        process = gaussian(model, "interpolate")
        T = model.T
        times = self.times or sorted({max(1, T * part // 8) for part in (1, 2, 4, 6, 8)})
        for t in times:
            check.integer("task.times", t, low=1, high=T)
        numbers, pair = self.real(model)
        x0, shares = model.encode(pair), torch.linspace(0, 1, self.num_mixtures)
        ids = torch.zeros(self.num_mixtures, dtype=torch.int64, device=model.device)
        outputs = []
        for t in times:
            x_t = process.apply(x0, process.draw(x0, model.rng.at(t, ids[:2])), t)
            outputs.append(model.sampled(linear(x_t[0], x_t[1], shares), ids, t))
        first, last = pair.cpu()
        drawn = sheet(
            [[first, *row, last] for row in outputs],
            rows=[f"t = {t}" for t in times],
            columns=[f"image\n{numbers[0]}", *(f"{share:g}" for share in shares.round(decimals=3).tolist()),
                     f"image\n{numbers[1]}"],
            title=f"mixed at time t of {T}, by the share of the second image",
        )  # fmt: skip
        arrays = {"originals": pair, "interpolations": torch.stack(outputs), "times": torch.tensor(times)}
        return Outcome({"interpolate": drawn}, arrays, {"images": numbers, "times": times})
