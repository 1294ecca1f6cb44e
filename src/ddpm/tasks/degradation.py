"""Real images on their way to nothing, as the model's process takes them."""

from dataclasses import dataclass

import torch

from ddpm.base import check
from ddpm.tasks.base import ImageTask, Model, Outcome
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class Degradation(ImageTask):
    """num_times: how many times are shown, from 0 to T in even steps; all where there are fewer.

    The state of a row is one, as in sampling.
    """

    num_times: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check.integer("task.num_times", self.num_times, low=2)

    def __call__(self, model: Model) -> Outcome:
        process = model.sampler.process
        numbers, images = self.real(model)
        x0 = model.codec.encode(images)
        z = process.draw(x0, model.rng.at(process.T, model.ids(*numbers)))
        times = torch.linspace(0, process.T, min(self.num_times, process.T + 1)).round().int().tolist()
        strip = model.decode(torch.stack([process.apply(x0, z, t) for t in times], dim=1))
        drawn = sheet(
            list(strip),
            rows=[f"image {number}" for number in numbers],
            columns=[f"t = {t}" for t in times],
            title=type(process).__name__,
        )
        return Outcome({"degradation": drawn}, {"images": strip}, {"images": numbers, "times": times})
