"""Upsample small images from files with a model with cond=low_res, as they are (Saharia et al. 2021)."""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from ddpm.base import check
from ddpm.base.images import to_uint8
from ddpm.data.any_images import images_of_shape, named_as
from ddpm.data.pixels import ImageData
from ddpm.tasks.base import Model, Outcome, num_steps
from ddpm.tasks.restore import completion_ids
from ddpm.tasks.sheet import sheet
from ddpm.tasks.upsample import agreement, disagreement, enlarge, refuse_without_low_res

NUM_ROWS = 8  # of the sheet


@dataclass(frozen=True)
class UpsampleFiles:
    """small: path of an image file, or of a folder, .zip, .tar, .npz, .npy or .parquet file of images, all of the size
    of the model's small images. num_samples: samples per image.

    Images are converted to the model's channels, but never resized. The number of an image, in the order of names or
    rows, and the seed determine its samples. Image 3 becomes large/000003.png, or large/000003_0.png, ... for several
    samples.
    """

    small: str | None
    num_samples: check.PositiveInt

    def __post_init__(self) -> None:
        if not isinstance(self.small, str):
            check.fail("task.small", self.small, "the path of small images, as task.small=FILE.png or a folder of them")
        check.fields(self, "task.")

    def __call__(self, model: Model) -> Outcome:
        condition = refuse_without_low_res(model, "upsample_files")
        path = Path(str(self.small))
        whose, large = "the small images of this model are", " x ".join(map(str, model.image_shape[1:]))
        remedy = f"resize all of them to that; task=upsample data=... reduces large images ({large}) itself"
        with named_as("task.small", path):
            data = images_of_shape(path, condition.small_shape(model.image_shape), whose, remedy)
            images: ImageData = data.split("train")
        small = torch.cat(list(images.batches(model.batch_size)))
        names = [data.source.open().name(number) for number in range(len(small))]
        repeated = small.to(model.device).repeat_interleave(self.num_samples, dim=0)
        samples = enlarge(model, repeated, completion_ids(model, list(range(len(small))), self.num_samples))
        off = disagreement(condition, samples, repeated.cpu())
        samples = samples.unflatten(0, (len(small), self.num_samples))
        squares = F.interpolate(small[:NUM_ROWS], samples.shape[3:], mode="nearest")
        drawn = sheet(
            [[square, *some] for square, some in zip(squares, samples, strict=False)],
            rows=[Path(name).name for name in names[:NUM_ROWS]],
            columns=["small", *(f"{k + 1}" for k in range(self.num_samples))],
            title=f"{condition.factor} times as large, {num_steps(model.sampler, model.T)} steps",
        )
        pictures = {
            f"large/{number:06d}" + (f"_{k}" if self.num_samples > 1 else ""): to_uint8(sample).permute(1, 2, 0)
            for number, some in enumerate(samples)
            for k, sample in enumerate(some)
        }
        return Outcome(
            {"upsample_files": drawn, **pictures},
            {"small": small, "samples": samples},
            {"images": names, "factor": condition.factor, "disagreement_levels": off},
            [f"{len(small):,} images of {path}, {condition.factor} times as large", agreement(off)],
        )
