"""Add noise of a given SNR to real images and denoise them (Sohl-Dickstein et al. 2015, figure 3)."""

from dataclasses import dataclass

import torch

from ddpm.base import check
from ddpm.diffusion.schedules.base import time_of_snr
from ddpm.metrics.fidelity import psnr
from ddpm.tasks.base import ImageTask, Model, Outcome, format_decibels, gaussian
from ddpm.tasks.sheet import beside_originals


@dataclass(frozen=True)
class Denoise(ImageTask):
    """snr: signal-to-noise ratio alpha^2 / sigma^2 of the noisy images; the nearest time is used.

    A sample given the noisy image is sharp. The mean of all such samples, which the network predicts in one step, is
    blurred but has the least possible squared error.
    """

    snr: check.PositiveNumber

    def __call__(self, model: Model) -> Outcome:
        process = gaussian(model, "denoise")
        t = time_of_snr(process.schedule, self.snr)
        snr, alpha = process.schedule.snr(t), process.schedule.alpha(t)
        if alpha == 0:
            check.fail("task.snr", self.snr, f"larger, because at t = {t} no signal is left")
        numbers, images = self.real(model)
        ids, x0 = model.ids(*numbers), model.encode(images)
        x_t = process.apply(x0, process.draw(x0, model.rng.at(t, ids)), t)
        sampled = model.sampled(x_t, ids, t)
        means = (model.denoiser(x_t[rows], t, model.conditions_of(rows)).x0 for rows in model.batches(len(x_t)))
        mean = torch.cat(list(means))
        outputs = {"noisy": model.decode(x_t / alpha), "predicted mean": model.decode(mean), "sampled": sampled}
        images = images.cpu()
        quality = {name: psnr(x, images) for name, x in outputs.items()}
        labelled = {f"{name}\n{format_decibels(quality[name].mean())}": x for name, x in outputs.items()}
        title = f"signal-to-noise ratio {snr:.3g}, t = {t} of {model.T}"
        drawn = beside_originals(numbers, images, labelled, title)
        lines = [f"signal-to-noise ratio {snr:.3g} at t = {t} of {model.T}; mean PSNR of {len(images)} images:"]
        lines += [f"  {name.ljust(15)} {format_decibels(quality[name].mean())}" for name in outputs]
        numbers_of = {name.replace(" ", "_"): values.tolist() for name, values in quality.items()}
        arrays = {"originals": images, **{name.replace(" ", "_"): x for name, x in outputs.items()}}
        figures = {"images": numbers, "t": t, "snr": snr, "psnr_db": numbers_of}
        return Outcome({"denoise": drawn}, arrays, figures, lines)
