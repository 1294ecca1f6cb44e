"""Restore degraded real images with algorithms 1 and 2 of Cold Diffusion (Bansal et al. 2022)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.samplers.restoration import WAYS, restorations
from ddpm.metrics.fidelity import rmse, ssim
from ddpm.tasks.base import ImageTask, Model, Outcome, num_steps
from ddpm.tasks.sheet import beside_originals


@dataclass(frozen=True)
class Restoration(ImageTask):
    """t: the time to which images are degraded, 1..T; None: T."""

    idle: ClassVar = {
        **dict.fromkeys(("sampler", "variance"), "task=restoration uses both algorithms of Cold Diffusion"),
        "sampler.steps": "",
    }
    t: int | None

    def __call__(self, model: Model) -> Outcome:
        t = model.T if self.t is None else check.integer("task.t", self.t, low=1, high=model.T)
        numbers, images = self.real(model)
        ids, x0 = model.ids(*numbers), model.encode(images)
        found = [
            restorations(model.denoiser, model.sampler, x0[rows], t, model.rng, ids[rows], model.conditions_of(rows))
            for rows in model.batches(len(ids))
        ]
        outputs = {way: model.decode(torch.cat([each[way] for each in found])).clamp(-1, 1) for way in WAYS}
        images = images.cpu()
        quality = {way: {"rmse": rmse(x, images), "ssim": ssim(x, images)} for way, x in outputs.items()}
        captions = {way: describe_restoration(found) for way, found in quality.items()}
        labelled = {"\n".join([way, *words]): outputs[way] for way, words in captions.items()}
        title = f"{type(model.sampler.process).__name__}, t = {t} of {model.T}, {num_steps(model.sampler, t)} steps"
        drawn = beside_originals(numbers, images, labelled, title)
        names = {way: way.replace(" ", "_") for way in WAYS}
        values = {names[way]: {name: each.tolist() for name, each in found.items()} for way, found in quality.items()}
        return Outcome(
            {"restoration": drawn},
            {"originals": images, **{names[way]: x for way, x in outputs.items()}},
            {"images": numbers, "t": t, **values},
            [f"means over {len(numbers)} images of split={self.split}, degraded to t = {t} of {model.T}:"]
            + [f"  {way.ljust(11)} {', '.join(words)}" for way, words in captions.items()],
        )


def describe_restoration(found: dict[str, Tensor]) -> list[str]:
    return [f"{name.upper()} {float(each.mean()):.3f}" for name, each in found.items()]
