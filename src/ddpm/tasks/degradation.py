"""Real images, degraded step by step by the model's forward process."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from ddpm.base import check
from ddpm.tasks.base import ImageTask, Model, Outcome
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class Degradation(ImageTask):
    """num_times: number of evenly spaced times from 0 to T; at most T + 1.

    All images of a row share one random state z, as in sampling.
    """

    num_times: Annotated[int, check.integers(2)]
    idle: ClassVar = dict.fromkeys(
        ("sampler", "timestep_spacing", "variance", "clip", "guidance", "weights", "class"),
        "task=degradation uses the forward process only",
    )

    def __call__(self, model: Model) -> Outcome:
        process = model.sampler.process
        numbers, images = self.real(model)
        x0 = model.encode(images)
        z = process.draw(x0, model.rng.at(process.T, model.ids(*numbers)))
        times = torch.linspace(0, process.T, min(self.num_times, process.T + 1)).round().int().tolist()
        strip = model.decode(torch.stack([process.apply(x0, z, t) for t in times], dim=1))
        rows, columns = [f"image {number}" for number in numbers], [f"t = {t}" for t in times]
        drawn = sheet(list(strip), rows, columns, type(process).__name__)
        return Outcome({"degradation": drawn}, {"images": strip}, {"images": numbers, "times": times})
