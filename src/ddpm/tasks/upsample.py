"""Downsample real images and upsample them with a model with cond=low_res (Saharia et al. 2021, section 4)."""

from dataclasses import dataclass, replace

import torch.nn.functional as F
from torch import Tensor

from ddpm.base import check
from ddpm.diffusion.conditions.base import CONCAT
from ddpm.diffusion.conditions.low_resolution import LowResolution
from ddpm.metrics.fidelity import psnr
from ddpm.tasks.base import ImageTask, Model, Outcome, format_decibels, num_steps
from ddpm.tasks.restore import completion_ids
from ddpm.tasks.sheet import sheet


@dataclass(frozen=True)
class Upsample(ImageTask):
    """num_samples: samples per image.

    The mean of the samples is closer to the original than any of them, because the posterior mean has the least
    possible squared error.
    """

    num_samples: check.PositiveInt

    def __call__(self, model: Model) -> Outcome:
        condition = refuse_without_low_res(model, "upsample")
        numbers, images = self.real(model)
        small = condition.small(images)
        ids = completion_ids(model, numbers, self.num_samples)
        outputs = enlarge(model, small.repeat_interleave(self.num_samples, dim=0), ids)
        outputs = outputs.unflatten(0, (len(numbers), self.num_samples))
        images, small = images.cpu(), small.cpu()
        bicubic = F.interpolate(small, images.shape[2:], mode="bicubic").clamp(-1, 1)
        shown = {"bicubic": bicubic, "mean": outputs.mean(dim=1), "one sample": outputs[:, 0]}
        quality = {name: psnr(x, images).mean() for name, x in shown.items()}
        labels = {name: f"{name}\n{format_decibels(value)}" for name, value in quality.items()}
        squares = F.interpolate(small, images.shape[2:], mode="nearest")
        drawn = sheet(
            [[squares[i], bicubic[i], shown["mean"][i], *outputs[i], images[i]] for i in range(len(numbers))],
            rows=[f"image {number}" for number in numbers],
            columns=[
                *("small", labels["bicubic"], f"mean of {self.num_samples}\n{format_decibels(quality['mean'])}"),
                *(labels["one sample"] if k == 0 else f"{k + 1}" for k in range(self.num_samples)),
                "original",
            ],
            title=f"{condition.factor} times as large, {num_steps(model.sampler, model.T)} steps",
        )
        off = disagreement(condition, outputs.flatten(0, 1), small.repeat_interleave(self.num_samples, dim=0))
        lines = [f"PSNR of {len(numbers)} images of split={self.split}:"]
        lines += [f"  {name.ljust(10)} {format_decibels(value)}" for name, value in quality.items()]
        figures = {
            "images": numbers,
            "factor": condition.factor,
            "psnr_db": {name.replace(" ", "_"): float(value) for name, value in quality.items()},
            "disagreement_levels": off,
        }
        arrays = {"originals": images, "small": small, "samples": outputs, "bicubic": bicubic}
        return Outcome({"upsample": drawn}, arrays, figures, [*lines, agreement(off)])


def refuse_without_low_res(model: Model, task: str) -> LowResolution:
    if not isinstance(model.condition, LowResolution):
        raise ValueError(
            f"task={task} needs a model with cond=low_res, but this has {type(model.condition).__name__}; train one "
            "with cond=low_res"
        )
    return model.condition


def enlarge(model: Model, small: Tensor, ids: Tensor) -> Tensor:
    """Sample large images `[N, C, H, W]`, on the CPU, from small ones `[N, C, h, w]`. ids: int64 `[N]`, sample numbers.

    The noise differs from that of ordinary samples with these numbers, which may have generated the small images.
    """
    model = replace(model, rng=replace(model.rng, scope=f"{model.rng.scope}, enlarged"))
    return model.sampled(model.prior(ids), ids, model.T, cond={CONCAT: small})


def disagreement(condition: LowResolution, large: Tensor, small: Tensor) -> float:
    """Root mean square difference between downsampled large images and the small images, in levels of 0..255."""
    return float((condition.small(large) - small).square().mean().sqrt()) * 127.5


def agreement(off: float) -> str:
    return f"downsampled samples differ from the small images by {off:.2f} of 255 levels (RMS)"
