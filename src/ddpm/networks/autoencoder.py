"""First stages of latent diffusion: autoencoders of images (Rombach et al. 2022, section 3.1 and appendix G).

Encoder and decoder are those of Esser et al. 2021 ("Taming Transformers"), of the residual blocks of a U-Net without
time and without connections between both halves.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.layers import conv1x1, conv3x3
from ddpm.networks.levels import BlockFactory, Level
from ddpm.networks.settings import UNetSettings, check_size

NO_SAMPLES = (
    "a first stage, which generates no images: it is trained with loss=first_stage_kl or first_stage_vq, measured with "
    "metric=reconstruction, and used by a model of its latents with codec=latent codec.first_stage=CHECKPOINT"
)
LOG_VARIANCES = -30.0, 20.0
"""Bounds of the log variance of a latent, as in the authors' code."""
SUMS = ("num", "mean", "square", "variance", "kl")
"""What `KLAutoencoder.use` sums."""
DISTANCES = 2**26
"""Distances between latents and codes that are held in memory at once."""


class Encoder(nn.Module):
    """`[B, C, H, W]` to float `[B, out_channels, h, w]`."""

    def __init__(self, factory: BlockFactory, middle_attention: bool, out_channels: int) -> None:
        super().__init__()
        width = factory.settings.widths[-1]
        self.patch_size = factory.settings.patch_size
        self.stem = factory.stem()
        self.down, self.middle = factory.down_path(), factory.middle(middle_attention)
        self.norm = factory.norm(width)
        self.out = conv3x3(width, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(F.pixel_unshuffle(x, self.patch_size))
        for level in self.down:
            h = through(level, h)
        for block in self.middle:
            h = block(h)
        with torch.autocast(h.device.type, enabled=False):
            return self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))


class Decoder(nn.Module):
    """`[B, in_channels, h, w]` to float `[B, C, H, W]`, with one residual block more in each level than the encoder."""

    def __init__(self, factory: BlockFactory, middle_attention: bool, in_channels: int) -> None:
        super().__init__()
        s = factory.settings
        self.patch_size, channels = s.patch_size, s.widths[-1]
        self.stem = conv3x3(in_channels, channels)
        self.middle, self.up = factory.middle(middle_attention), nn.ModuleList()
        for level, width in reversed(list(enumerate(s.widths))):
            inputs = [channels] + [width] * s.num_res_blocks
            blocks = [factory.block(c, width, level in s.attention_levels) for c in inputs]
            self.up.append(Level(blocks, factory.up(width) if level > 0 else None))
            channels = width
        self.norm = factory.norm(channels)
        self.out = conv3x3(channels, s.in_channels * s.patch_size**2)

    def forward(self, z: Tensor) -> Tensor:
        h = self.stem(z)
        for block in self.middle:
            h = block(h)
        for level in self.up:
            h = through(level, h)
        with torch.autocast(h.device.type, enabled=False):
            h = self.out(F.silu(self.norm(h.to(self.out.weight.dtype))))
        return F.pixel_shuffle(h, self.patch_size)


def through(level: Level, h: Tensor) -> Tensor:
    for block in level.blocks:
        h = block(h)
    return h if level.resample is None else level.resample(h)


class Autoencoder(nn.Module):
    """What both kinds share: `network(x, time) -> [B, in_channels, H, W]`, the reconstruction; the time says nothing.

    `moments(images)` is what the encoder says of z, `draw(moments, normal)` a z, `[B, z_channels, h, w]`, and
    `decode(z)` an image without bounds (no tanh, as published). factor: side of an image over that of its latent.
    middle_attention: the middle blocks have attention. patch_size: as of `UNet`; 1 in the paper. The other arguments
    are those of `UNetSettings`. H and W must be divisible by factor. Under autocast, the last norms and convolutions
    and those of the latents stay float32.
    """

    reconstructs: ClassVar[bool] = True
    no_samples: ClassVar[str] = NO_SAMPLES

    def __init__(self, z_channels: int, num_moments: int, middle_attention: bool, settings: UNetSettings) -> None:
        super().__init__()
        check.positive_int("z_channels", z_channels)
        check.boolean("middle_attention", middle_attention)
        self.in_channels = self.out_channels = settings.in_channels
        self.z_channels, self.num_moments = z_channels, num_moments
        self.settings = asdict(settings) | {"z_channels": z_channels, "middle_attention": middle_attention}
        self.num_levels, self.patch_size = len(settings.widths), settings.patch_size
        self.factor = settings.patch_size * 2 ** (self.num_levels - 1)
        factory = BlockFactory(settings, timeless=True)
        self.encoder = Encoder(factory, middle_attention, num_moments)
        self.decoder = Decoder(factory, middle_attention, z_channels)
        self.to_moments, self.from_z = conv1x1(num_moments, num_moments), conv1x1(z_channels, z_channels)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Both halves, which a loss calls by themselves."""
        self.encoder.compile(*args, **kwargs)
        self.decoder.compile(*args, **kwargs)

    @property
    def last_weight(self) -> nn.Parameter:
        """Of the decoder's last convolution, where the terms of the loss are balanced."""
        return self.decoder.out.weight

    def check_images(self, shape: Sequence[int]) -> None:
        """Raise ValueError unless images of the shape `(C, H, W)` have a latent."""
        if len(shape) != 3 or shape[0] != self.in_channels:
            check.fail("the shape of images", [*shape], f"[{self.in_channels}, H, W] for this first stage")
        check_size(shape[1:], self.num_levels, self.patch_size)

    def encoded(self, images: Tensor) -> Tensor:
        """`[B, num_moments, h, w]`. ValueError for images of another size or number of channels."""
        self.check_images(images.shape[1:])
        h = self.encoder(images)
        with torch.autocast(h.device.type, enabled=False):
            return self.to_moments(h)

    def decoded(self, z: Tensor) -> Tensor:
        """`[B, in_channels, H, W]` of z, whose codes are already looked up if there is a codebook."""
        with torch.autocast(z.device.type, enabled=False):
            z = self.from_z(z.to(self.from_z.weight.dtype))
        return self.decoder(z)


@final
class KLAutoencoder(Autoencoder):
    """z is Gaussian. moments: its mean and log variance, the latter in [-30, 20].

    learn_log_scale: the log of the scale of the error is a weight; it is not in the published ones, where it is 0.
    """

    def __init__(
        self, *, z_channels: int, middle_attention: bool = True, learn_log_scale: bool = False, **settings: Any
    ) -> None:
        super().__init__(z_channels, 2 * z_channels, middle_attention, UNetSettings(**settings))
        check.boolean("learn_log_scale", learn_log_scale)
        self.settings["learn_log_scale"] = learn_log_scale
        self.log_scale = nn.Parameter(torch.zeros(())) if learn_log_scale else None

    def moments(self, images: Tensor) -> Tensor:
        mean, log_variance = self.encoded(images).chunk(2, dim=1)
        return torch.cat([mean, log_variance.clamp(*LOG_VARIANCES)], dim=1)

    def mean(self, moments: Tensor) -> Tensor:
        return moments.chunk(2, dim=1)[0]

    def std(self, moments: Tensor) -> Tensor:
        return (moments.chunk(2, dim=1)[1] / 2).exp()

    def kl(self, moments: Tensor) -> Tensor:
        """KL(q(z | x) || N(0, 1)) in nats, of each number of z."""
        mean, log_variance = moments.chunk(2, dim=1)
        return (mean.square() + log_variance.exp() - 1 - log_variance) / 2

    def draw(self, moments: Tensor, normal: Tensor) -> Tensor:
        return self.mean(moments) + self.std(moments) * normal

    @property
    def use_shape(self) -> tuple[int, ...]:
        return (len(SUMS), self.z_channels)

    def use(self, moments: Tensor) -> Tensor:
        """Sums over images and pixels, float64 `[5, z_channels]`, of which `describe_use` makes numbers."""
        mean, variance = self.mean(moments).double(), self.std(moments).double().square()
        each = (torch.ones_like(mean), mean, mean.square(), variance, self.kl(moments).double())
        return torch.stack([some.sum((0, 2, 3)) for some in each])

    def describe_use(self, use: Tensor) -> dict[str, float]:
        """KL in nats a number of z, and the standard deviation of z in each channel, sqrt(Var(mean) + E[variance])."""
        num, *sums = use
        of = dict(zip(SUMS[1:], (each / num for each in sums), strict=True))
        std = (of["square"] - of["mean"].square() + of["variance"]).sqrt()
        return {"kl": of["kl"].mean().item(), **{f"z_std_{c}": value for c, value in enumerate(std.tolist())}}

    def decode(self, z: Tensor) -> Tensor:
        return self.decoded(z)

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        refuse_conditions(cond)
        return self.decode(self.mean(self.moments(x)))


@final
class VQAutoencoder(Autoencoder):
    """z is a code before it is quantised, as diffusion has it; `decode` takes the nearest entry of the codebook.

    num_codes: entries of the codebook (van den Oord et al. 2017), which start uniform in +-1 / num_codes.
    """

    def __init__(self, *, z_channels: int, num_codes: int, middle_attention: bool = True, **settings: Any) -> None:
        super().__init__(z_channels, z_channels, middle_attention, UNetSettings(**settings))
        self.num_codes = self.settings["num_codes"] = check.positive_int("num_codes", num_codes)
        self.codebook = nn.Embedding(num_codes, z_channels)
        nn.init.uniform_(self.codebook.weight, -1 / num_codes, 1 / num_codes)

    def moments(self, images: Tensor) -> Tensor:
        return self.encoded(images)

    def mean(self, moments: Tensor) -> Tensor:
        return moments

    def std(self, moments: Tensor) -> Tensor:
        return torch.zeros_like(moments)

    def draw(self, moments: Tensor, normal: Tensor) -> Tensor:
        return moments

    @torch.no_grad()
    def nearest(self, z: Tensor) -> Tensor:
        """The codes nearest to z, int64 `[B, h, w]`."""
        table = self.codebook.weight
        points, squares = z.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype), table.square().sum(1)
        with torch.autocast(z.device.type, enabled=False):
            rows = points.split(max(DISTANCES // self.num_codes, 1))
            codes = torch.cat([(squares - 2 * some @ table.T).argmin(1) for some in rows])  # |z|^2 changes no order
        return codes.view(len(z), *z.shape[2:])

    def entries(self, codes: Tensor) -> Tensor:
        """Of the codebook, `[B, z_channels, h, w]`."""
        return self.codebook(codes).permute(0, 3, 1, 2)

    @property
    def use_shape(self) -> tuple[int, ...]:
        return (self.num_codes,)

    def use(self, moments: Tensor) -> Tensor:
        """How often each code is the nearest, float64 `[num_codes]`."""
        return torch.bincount(self.nearest(moments).flatten(), minlength=self.num_codes).double()

    def describe_use(self, use: Tensor) -> dict[str, float]:
        """The share of the codes that are used, and their perplexity, e to the entropy of their use."""
        share = use / use.sum()
        return {
            "codes_used": (use > 0).double().mean().item(),
            "perplexity": torch.special.entr(share).sum().exp().item(),
        }

    def decode(self, z: Tensor) -> Tensor:
        return self.decoded(self.entries(self.nearest(z)))

    def forward(self, x: Tensor, time: Tensor, **cond: Tensor) -> Tensor:
        refuse_conditions(cond)
        return self.decode(self.moments(x))


def refuse_conditions(cond: dict[str, Tensor]) -> None:
    if cond:
        raise ValueError(f"a first stage takes no conditions, got {', '.join(sorted(cond))}; choose cond=none")
