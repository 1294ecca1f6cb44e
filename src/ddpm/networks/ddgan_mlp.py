"""Generator and discriminator of a denoising diffusion GAN of points in the plane, and other images of few pixels."""

import itertools
import math
from collections.abc import Sequence
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import TimeEmbedding, add_class
from ddpm.networks.layers import linear_layer
from ddpm.networks.settings import check_input, check_label, check_latent


class Layers(nn.Module):
    """`[B, inputs]` to `[B, outputs]`: linear layers with LeakyReLU, to each of which the time and class are added."""

    def __init__(self, inputs: int, outputs: int, width: int, num_layers: int, num_classes: int | None) -> None:
        super().__init__()
        if check.positive_int("width", width) < 4 or width % 2:
            check.fail("width", width, "even and at least 4, since half of the time's waves are cosines")
        self.num_classes = check.positive_int_or_none("num_classes", num_classes)
        widths = [inputs] + [width] * check.positive_int("num_layers", num_layers)
        self.time = TimeEmbedding(width, width)
        self.layers = nn.ModuleList(linear_layer(*pair) for pair in itertools.pairwise(widths))
        self.out = linear_layer(width, outputs)
        self.label = nn.Embedding(num_classes, width) if num_classes else None

    def forward(self, h: Tensor, time: Tensor, label: Tensor | None) -> Tensor:
        check_label(label, len(h), self.num_classes)
        emb = add_class(self.time(time), self.label, label)
        for layer in self.layers:
            h = F.leaky_relu(layer(h) + emb, 0.2)
        with torch.autocast(h.device.type, enabled=False):
            return self.out(h.to(self.out.weight.dtype))


def with_waves(points: Tensor, num_frequencies: int) -> Tensor:
    """`[B, C]` points beside sines and cosines of pi, 2 pi, 4 pi, ... times themselves, `[B, C (1 + 2 num)]`.

    Without these, linear layers learn narrow structures slowly (Tancik et al. 2020).
    """
    angles = [math.pi * 2**k * points for k in range(num_frequencies)]
    return torch.cat([points, *(wave for angle in angles for wave in (angle.sin(), angle.cos()))], dim=1)


@final
class MLPGenerator(nn.Module):
    """`network(x, time, latent=z) -> [B, in_channels, H, W]`, as `DDGANGenerator`.

    size: of the images, one length or [height, width]. num_frequencies: of `with_waves`, for all numbers of an image.
    """

    predicts: ClassVar[str] = "X0"  # the only objective

    def __init__(
        self,
        in_channels: int,
        size: int | Sequence[int],
        width: int,
        num_layers: int,
        latent_channels: int,
        num_frequencies: int = 0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = check.positive_int("in_channels", in_channels), *check.height_width("size", size)
        self.in_channels = self.out_channels = in_channels
        self.latent_channels, numbers = check.positive_int("latent_channels", latent_channels), math.prod(self.shape)
        self.num_frequencies = check.non_negative_int("num_frequencies", num_frequencies)
        inputs = numbers * (1 + 2 * num_frequencies) + latent_channels
        self.layers = Layers(inputs, numbers, width, num_layers, num_classes)

    def forward(self, x: Tensor, time: Tensor, latent: Tensor | None = None, label: Tensor | None = None) -> Tensor:
        check_input("generator", x, self.shape, {})
        check_latent(latent, len(x), self.latent_channels)
        h = torch.cat([with_waves(x.flatten(1), self.num_frequencies), latent.to(x.dtype)], dim=1)
        return self.layers(h, time, label).tanh().view(x.shape)


@final
class MLPDiscriminator(nn.Module):
    """`discriminator(x_s, time, x_t) -> [B]` logits, as `DDGANDiscriminator`. size: as of `MLPGenerator`."""

    def __init__(
        self,
        in_channels: int,
        size: int | Sequence[int],
        width: int,
        num_layers: int,
        num_frequencies: int = 0,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        self.shape = check.positive_int("in_channels", in_channels), *check.height_width("size", size)
        self.num_frequencies = check.non_negative_int("num_frequencies", num_frequencies)
        inputs = 2 * math.prod(self.shape) * (1 + 2 * num_frequencies)
        self.layers = Layers(inputs, 1, width, num_layers, num_classes)

    def forward(self, x_s: Tensor, time: Tensor, x_t: Tensor, label: Tensor | None = None) -> Tensor:
        check_input("discriminator", x_s, self.shape, {})
        check_input("discriminator", x_t, self.shape, {})
        pair = torch.cat([x_s.flatten(1), x_t.flatten(1)], dim=1)
        return self.layers(with_waves(pair, self.num_frequencies), time, label)[:, 0]
