"""Generator and adversary of fully connected layers: a denoising diffusion GAN of points in the plane."""

import itertools
import math
from collections.abc import Sequence
from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.ddgan_generator import check_latent
from ddpm.networks.embeddings import TimeEmbedding
from ddpm.networks.layers import linear_layer
from ddpm.networks.settings import check_input, height_and_width


class Layers(nn.Module):
    """Linear layers of one width with LeakyReLU between them, each shifted by the embedded time.

    num_frequencies: the points go in with sines and cosines of pi, 2 pi, 4 pi, ... times themselves, without which such
    a network hardly learns what is narrow (Tancik et al. 2020).
    """

    def __init__(
        self, num_points: int, num_others: int, num_outputs: int, width: int, num_layers: int, num_frequencies: int
    ) -> None:
        super().__init__()
        check.positive_int("num_layers", num_layers)
        if check.positive_int("width", width) < 4 or width % 2:
            check.fail("width", width, "even and at least 4, since half of the time's waves are cosines")
        self.time = TimeEmbedding(width, width)
        self.num_frequencies = check.non_negative_int("num_frequencies", num_frequencies)
        sizes = [num_points * (1 + 2 * num_frequencies) + num_others] + num_layers * [width]
        self.layers = nn.ModuleList(linear_layer(*pair) for pair in itertools.pairwise(sizes))
        self.out = linear_layer(width, num_outputs)

    def forward(self, points: Tensor, others: Sequence[Tensor], time: Tensor) -> Tensor:
        """points: `[B, num_points]`, others: `[B, ...]` each, time: `[B]`."""
        emb = F.silu(self.time(time))
        angles = [math.pi * 2**k * points for k in range(self.num_frequencies)]
        h = torch.cat([points, *(wave for angle in angles for wave in (angle.sin(), angle.cos())), *others], dim=1)
        for layer in self.layers:
            h = F.leaky_relu(layer(h) + emb, 0.2)
        return self.out(h)


@final
class LatentMLP(nn.Module):
    """`network(x, time, latent=z) -> [B, in_channels, H, W]`; size: of the images, one length or [height, width].

    z: standard normal `[B, latent_channels]`. The output is not bounded.
    """

    def __init__(
        self,
        in_channels: int,
        size: int | Sequence[int],
        width: int,
        num_layers: int,
        num_frequencies: int,
        latent_channels: int,
    ) -> None:
        super().__init__()
        self.in_channels = self.out_channels = check.positive_int("in_channels", in_channels)
        self.size, self.latent_channels = height_and_width(size), check.positive_int("latent_channels", latent_channels)
        num = in_channels * math.prod(self.size)
        self.layers = Layers(num, latent_channels, num, width, num_layers, num_frequencies)

    def forward(self, x: Tensor, time: Tensor, latent: Tensor | None = None, **cond: Tensor) -> Tensor:
        check_input("MLP", x, (self.in_channels, *self.size), cond)
        check_latent(latent, len(x), self.latent_channels)
        return self.layers(x.flatten(1), [latent.to(x.dtype)], time).view(x.shape)


@final
class AdversaryMLP(nn.Module):
    """`adversary(x_s, time, x_t) -> [B]` logits, for images of in_channels and size as `LatentMLP`."""

    def __init__(
        self, in_channels: int, size: int | Sequence[int], width: int, num_layers: int, num_frequencies: int
    ) -> None:
        super().__init__()
        self.in_channels, self.size = check.positive_int("in_channels", in_channels), height_and_width(size)
        self.layers = Layers(2 * in_channels * math.prod(self.size), 0, 1, width, num_layers, num_frequencies)

    def forward(self, x_s: Tensor, time: Tensor, x_t: Tensor, **cond: Tensor) -> Tensor:
        check_input("MLP", x_s, (self.in_channels, *self.size), cond)
        return self.layers(torch.cat([x_s.flatten(1), x_t.flatten(1)], dim=1), [], time)[:, 0]
