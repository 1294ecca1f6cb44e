"""The parts of the U-Net against their formulas in plain tensors."""

import math

import pytest
import torch
import torch.nn.functional as F
from precision import assert_same, roundings

from ddpm.networks.attention import Attention
from ddpm.networks.blocks import Downsample, ResBlock, Upsample
from ddpm.networks.embeddings import sinusoid
from ddpm.networks.layers import conv1x1, conv3x3, linear_layer


def test_the_time_becomes_sines_then_cosines_from_frequency_one_to_one_in_10000():
    time = torch.tensor([0, 1, 999])
    waves = sinusoid(time, 128).double()
    frequencies = torch.tensor([10000 ** (-i / 63) for i in range(64)], dtype=torch.float64)
    angles = time[:, None] * frequencies
    assert waves[0].tolist() == [0.0] * 64 + [1.0] * 64
    expected = torch.cat([angles.sin(), angles.cos()], 1)
    assert (waves - expected).abs().max() < roundings(2, scale=999)  # the angles are float32: frequency and product


def test_a_block_without_change_of_width_starts_as_the_identity():
    x, emb = torch.randn(2, 8, 4, 4), torch.randn(2, 32)
    assert ResBlock(8, 8, emb_channels=32, dropout=0.0, num_groups=4)(x, emb).equal(x)
    assert Attention(8, num_heads=1, num_groups=4)(x).equal(x)


@pytest.mark.parametrize(
    "weights",
    [
        conv3x3(64, 128).weight,
        conv1x1(64, 128).weight,
        linear_layer(256, 128).weight,
        *Attention(64, num_heads=1, num_groups=4).qkv.weight.chunk(3),
    ],
    ids=["conv3x3", "conv1x1", "linear", "query", "key", "value"],
)
def test_weights_start_uniform_with_variance_two_over_the_sum_of_the_fans(weights):
    per_tap = weights[0, 0].numel()
    variance = 2 / (per_tap * (weights.shape[0] + weights.shape[1]))
    error = math.sqrt(0.8 / weights.numel())  # of a uniform sample's variance, relative: kurtosis 1.8
    assert weights.var().item() == pytest.approx(variance, rel=5 * error)
    assert 0.99 < weights.abs().max().item() / math.sqrt(3 * variance) <= 1


@pytest.mark.parametrize("num_heads", [1, 4])
def test_attention_is_a_softmax_over_all_pixels_for_each_head(num_heads):
    attention = Attention(8, num_heads, num_groups=4).double()
    torch.nn.init.normal_(attention.out.weight)
    x = torch.randn(2, 8, 3, 5, dtype=torch.float64)
    width = 8 // num_heads
    q, k, v = F.conv2d(attention.norm(x), attention.qkv.weight, attention.qkv.bias).flatten(2).chunk(3, dim=1)
    mixed = torch.zeros_like(v)
    for head in (slice(i * width, (i + 1) * width) for i in range(num_heads)):
        weights = torch.einsum("bci,bcj->bij", q[:, head], k[:, head]).div(math.sqrt(width)).softmax(-1)
        mixed[:, head] = torch.einsum("bij,bcj->bci", weights, v[:, head])
    expected = x + torch.einsum("oc,bcn->bon", attention.out.weight[:, :, 0, 0], mixed).view_as(x)
    assert_same(attention(x), expected)


@pytest.mark.parametrize("tap", range(3))
def test_downsampling_pads_the_bottom_and_right_alone(tap):
    downsample = Downsample(1)
    downsample.conv.weight.data.zero_()[0, 0, tap, tap] = 1
    x = torch.arange(16.0).view(1, 1, 4, 4)
    padded = torch.zeros(1, 1, 6, 6)
    padded[..., :4, :4] = x
    assert downsample(x).equal(padded[..., tap : tap + 4 : 2, tap : tap + 4 : 2])


def test_upsampling_is_a_convolution_of_every_pixel_written_four_times():
    upsample = Upsample(3).double()
    torch.nn.init.normal_(upsample.conv.bias)
    x = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    written = x.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)
    assert_same(upsample(x), F.conv2d(written, upsample.conv.weight, upsample.conv.bias, padding=1))
