"""A picture of the generated images that are most like training images, each with its nearest ones."""

import torch
from torch import Tensor

from ddpm.base.image_grid import tile_images
from ddpm.base.images import to_rgb
from ddpm.evaluation.evaluation_callback import StoredImages
from ddpm.metrics.neighbours import k_nearest
from ddpm.metrics.score import FeatureSet

NUM_SHOWN = 24
NUM_NEAREST = 3


def most_alike(real: FeatureSet, generated: FeatureSet) -> tuple[Tensor, Tensor]:
    """Numbers of generated images `[n]`, those first that are nearest against the next, and `[n, 3]` real ones."""
    k = min(NUM_NEAREST, real.num_images)
    distances, index = k_nearest(generated.rows, real.rows, k)
    suspects = (distances[:, 0] / distances[:, 1].clamp(min=1e-12)).argsort()[:NUM_SHOWN]
    return generated.ids[suspects].cpu(), real.ids[index[suspects]].cpu()


def draw_neighbours(found: tuple[Tensor, Tensor], generated: StoredImages, real: StoredImages) -> Tensor:
    """uint8 `[H, W, 3]`: in each row two generated images, each before the real ones nearest to it."""
    numbers, neighbours = found
    images = to_rgb(next(generated.read([numbers])))
    theirs = to_rgb(next(real.read([neighbours.flatten()])))
    rows = torch.cat([images[:, None], theirs.reshape(*neighbours.shape, *theirs.shape[1:])], 1)
    gap = torch.full_like(rows[:, :1], 128)
    whole = tile_images(torch.cat([rows, gap], 1).flatten(0, 1), num_columns=2 * rows.shape[1] + 2)
    return whole[:, : -(images.shape[-1] + 2)]  # without the last gap
