"""Convolutions, linear maps and norms with the initialisation of the published networks.

Ho et al. 2020's code: weights uniform with variance 2 / (fan_in + fan_out) (Xavier), biases zero.
"""

from typing import TypeVar

from torch import nn

Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


def initialise(layer: Layer) -> Layer:
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def zero_init(layer: Layer) -> Layer:
    """Initialize the last layer of a branch to 0, so that the branch starts at 0 (Ho et al. scale it by 1e-10)."""
    nn.init.zeros_(layer.weight)
    return layer


def scale_variance(layer: Layer, gain: float) -> Layer:
    """The initial weights with `gain` times their variance, as NCSN++ has it instead of zeros (1e-10), and for queries,
    keys and values (0.1).
    """
    layer.weight.data *= gain**0.5
    return layer


def initialise_by_outputs(layer: Layer, gain: float = 1.0) -> Layer:
    """Weights uniform with variance gain / fan_out, biases zero.

    So are the discriminators and the styles of denoising diffusion GANs; their code calls it the average of both fans.
    """
    nn.init.kaiming_uniform_(layer.weight, mode="fan_out", nonlinearity="linear")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return scale_variance(layer, gain)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    return initialise(nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1))


def conv1x1(in_channels: int, out_channels: int) -> nn.Conv2d:
    return initialise(nn.Conv2d(in_channels, out_channels, kernel_size=1))


def conv1x1_of(num: int, channels: int) -> nn.Conv2d:
    """`num` 1x1 convolutions in one layer, each initialized separately, because its fans differ."""
    maps = conv1x1(channels, num * channels)
    for weight in maps.weight.data.chunk(num):
        nn.init.xavier_uniform_(weight)
    return maps


def linear_layer(in_channels: int, out_channels: int, bias: bool = True) -> nn.Linear:
    return initialise(nn.Linear(in_channels, out_channels, bias=bias))


def group_norm(num_groups: int, channels: int, eps: float = 1e-6) -> nn.GroupNorm:
    return nn.GroupNorm(num_groups, channels, eps=eps)
