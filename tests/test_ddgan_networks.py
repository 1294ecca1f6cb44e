"""The networks of denoising diffusion GANs: published sizes, filters, groups, starts, and the gradient of R1."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from networks import awake, built, num_parameters
from omegaconf import OmegaConf
from precision import assert_same
from scipy.signal import convolve2d, upfirdn
from small_runs import ROOT

from ddpm.networks.ddgan_discriminator import DDGANDiscriminator, minibatch_deviation
from ddpm.networks.ddgan_generator import DDGANGenerator, StyleBlock, StyleNorm
from ddpm.networks.ddgan_mlp import MLPDiscriminator, MLPGenerator
from ddpm.networks.fir import FIR, FIRUpsample

SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "attention_levels": [1],
         "latent_channels": 5, "style_channels": 6, "num_mapping_layers": 1}  # fmt: skip
JUDGE = {"in_channels": 2, "base_channels": 4, "channel_mults": [1, 2, 2], "halving_blocks": [1], "time_channels": 6}
TIMES = torch.tensor([0, 1, 3, 2])


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X, Y, Z = drawn(4, 2, 8, 12), drawn(4, 2, 8, 12, seed=2), drawn(4, 5, seed=3)
LABELS = torch.tensor([0, 2, 1, 2])
GENERATORS = {
    "U-Net": lambda **others: DDGANGenerator(**SMALL, **others),
    "MLP": lambda **others: MLPGenerator(2, [8, 12], 8, 2, 5, **others),
}
DISCRIMINATORS = {
    "convolutions": lambda **others: DDGANDiscriminator(**JUDGE, **others),
    "MLP": lambda **others: MLPDiscriminator(2, [8, 12], 8, 2, **others),
}


def option(group, name, device="meta", **data):
    """The network of an option of conf/, for such data."""
    data = {"channels": 3, "size": 32, **data}
    leaf = OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml")
    return built(OmegaConf.create({"data": data, group: leaf})[group], device)


# Sizes


@pytest.mark.parametrize(("name", "published"), [("ddgan_small", 12_741_633), ("ddgan_large", 27_737_217)])
def test_the_published_discriminators_have_their_published_number_of_parameters(name, published):
    assert num_parameters(option("adversary", name)) == published


@pytest.mark.parametrize(
    ("option_name", "data", "low", "high"),
    [
        ("ddgan_tiny", {"channels": 1, "size": 28}, 0.3e6, 1e6),
        ("ddgan_mlp", {"channels": 1, "size": [1, 2]}, 5e4, 1e5),
    ],
)
def test_the_small_pairs_take_their_data_as_they_are_and_are_small(option_name, data, low, high):
    generator, judge = (option(group, option_name, "cpu", **data) for group in ("model", "adversary"))
    x = torch.randn(4, data["channels"], *([data["size"]] * 2 if option_name == "ddgan_tiny" else data["size"]))
    x0 = generator(x, TIMES, latent=torch.randn(4, generator.latent_channels))
    assert x0.shape == x.shape
    assert x0.abs().max() <= 1
    assert judge(x0, TIMES, x).shape == (4,)
    for network in (generator, judge):
        assert low < num_parameters(network) < high


# The filter


@pytest.mark.parametrize("taps", [(1, 3, 3, 1), (2, 7, 7, 2)])
@pytest.mark.parametrize("size", [(8, 6), (7, 9)])
def test_the_filter_is_that_of_scipy(taps, size):
    x, row = drawn(2, 3, *size), np.array(taps) / sum(taps)
    down, up = FIR(taps=taps), FIRUpsample(taps=taps)
    for module in (down, up):
        module.kernel = torch.from_numpy(np.outer(row, row))
    small, large = down(x), up(x)
    assert small.shape[2:] == (size[0] // 2, size[1] // 2)
    for sample in range(2):
        for channel in range(3):
            image = x[sample, channel].numpy()
            filtered = convolve2d(np.pad(image, 1), np.outer(row, row), mode="valid")[::2, ::2]
            assert_same(small[sample, channel], torch.from_numpy(filtered))
            image = upfirdn(2 * row, image, up=2, axis=0)[1:][: 2 * size[0]]  # one row before the first pixel's peak
            image = upfirdn(2 * row, image, up=2, axis=1)[:, 1:][:, : 2 * size[1]]
            assert_same(large[sample, channel], torch.from_numpy(image))


# Styles and starts


def test_a_style_of_scale_1_and_shift_0_is_a_plain_group_norm():
    norm, x = StyleNorm(8, 6).double(), drawn(4, 8, 5, 5)
    norm.style.weight.data.zero_()
    assert norm.style.bias.tolist() == [1.0] * 8 + [0.0] * 8
    assert_same(norm(x, drawn(4, 6)), F.group_norm(x, 2, eps=1e-6))


def test_a_branch_of_zero_gain_starts_as_its_shortcut_over_the_root_of_two():
    block, x = StyleBlock(8, 8, (6, 6, 0.0), attends=True).double(), drawn(4, 8, 5, 5)
    out = block(x, drawn(4, 6), drawn(4, 6))
    torch.testing.assert_close(out, x / 2, rtol=0, atol=1e-3)  # one root of the block and one of its attention
    assert (out - x / 2).abs().max() > 1e-8
    x0 = DDGANGenerator(**SMALL).double()(X, TIMES, latent=Z)
    assert 0 < x0.abs().max() < 1e-3


# Minibatch standard deviation


def test_members_of_a_group_are_strided():
    x = drawn(8, 3, 2, 2)
    found = minibatch_deviation(x, 4)
    for i in range(8):
        group = x[i % 2 :: 2].numpy()  # 0, 2, 4, 6 or 1, 3, 5, 7
        expected = np.sqrt(group.var(axis=0) + 1e-8).mean()
        assert_same(found[i], torch.full((1, 2, 2), float(expected), dtype=torch.float64))


def test_groups_may_be_smaller_or_off_and_must_be_full():
    x = drawn(6, 3, 2, 2)
    assert_same(minibatch_deviation(x, 1), torch.full((6, 1, 2, 2), 1e-4).double())
    assert_same(minibatch_deviation(x[:3], 4), minibatch_deviation(x[:3], 3))
    remedy = (
        r"micro-batch of 6 .*group_size = 4: choose data\.batch_size and trainer\.accumulate_grad_batches .*group_s"
    )
    with pytest.raises(ValueError, match=remedy):
        minibatch_deviation(x, 4)


def test_a_group_size_of_1_compares_no_images():
    judge = awake(DDGANDiscriminator(**JUDGE, group_size=1))
    assert_same(judge(X[1:], TIMES[1:], Y[1:]), judge(X, TIMES, Y)[1:])
    others = awake(DDGANDiscriminator(**JUDGE))
    assert (others(X[1:], TIMES[1:], Y[1:]) - others(X, TIMES, Y)[1:]).abs().max() > 1e-6


# Gradients


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_a_discriminator_is_differentiable_twice(kind):
    judge = awake(DISCRIMINATORS[kind]())
    x = X[:2].clone().requires_grad_(True)
    assert torch.autograd.gradgradcheck(lambda x: judge(x, TIMES[:2], Y[:2]).sum(), x, fast_mode=True)
    judge.requires_grad_(True)
    (slope,) = torch.autograd.grad(judge(x, TIMES[:2], Y[:2]).sum(), x, create_graph=True)
    slope.square().sum().backward()
    without = {name for name, weight in judge.named_parameters() if weight.grad is None}
    assert without <= {"out.bias", "final.bias", "layers.out.bias"}
    assert all(weight.grad.isfinite().all() for weight in judge.parameters() if weight.grad is not None)


# Conditions


@pytest.mark.parametrize("kind", GENERATORS)
def test_no_label_is_the_label_minus_one_and_a_network_without_classes(kind):
    torch.manual_seed(0)
    plain = GENERATORS[kind]()
    torch.manual_seed(0)
    network = GENERATORS[kind](num_classes=3).double()
    none, out = torch.full((4,), -1), network(X, TIMES, latent=Z)
    assert network(X, TIMES, latent=Z, label=none).equal(out)
    assert plain.double()(X, TIMES, latent=Z).equal(out)
    assert not awake(network)(X, TIMES, latent=Z, label=LABELS).equal(network(X, TIMES, latent=Z))


@pytest.mark.parametrize("kind", DISCRIMINATORS)
def test_a_discriminator_judges_by_time_class_and_both_images(kind):
    judge = awake(DISCRIMINATORS[kind](num_classes=3))
    logits = judge(X, TIMES, Y)
    assert judge(X, TIMES, Y, label=torch.full((4,), -1)).equal(logits)
    for others in ((X, TIMES, Y, LABELS), (X, TIMES + 1, Y), (Y, TIMES, X), (X, TIMES, Y.flip(0))):
        assert (judge(*others) - logits).abs().max() > 1e-6


@pytest.mark.parametrize("kind", GENERATORS)
def test_a_generator_without_a_latent_says_that_it_has_no_mean(kind):
    network = GENERATORS[kind]().double()
    with pytest.raises(ValueError, match=r"models a distribution, not a mean: it needs a latent at each step"):
        network(X, TIMES)
    with pytest.raises(
        ValueError, match=r"latent must be of the shape \[4, 5\], as latent_channels has it, got \[4, 6\]"
    ):
        network(X, TIMES, latent=drawn(4, 6))
    with pytest.raises(ValueError, match="knows no classes"):
        network(X, TIMES, latent=Z, label=LABELS)
    with pytest.raises(ValueError, match=r"label must be a class in 0\.\.2, or -1 for none, got 3"):
        GENERATORS[kind](num_classes=3).double()(X, TIMES, latent=Z, label=LABELS + 1)


@pytest.mark.parametrize(
    ("make", "name", "value"),
    [
        *((lambda v, n=n: DDGANGenerator(**SMALL | {n: v}), n, 0) for n in ("latent_channels", "style_channels")),
        (lambda v: DDGANGenerator(**SMALL | {"base_channels": v}), "base_channels", 10),
        (lambda v: DDGANGenerator(**SMALL | {"num_mapping_layers": v}), "num_mapping_layers", -1),
        (lambda v: DDGANDiscriminator(**JUDGE | {"halving_blocks": v}), "halving_blocks", [2]),
        (lambda v: DDGANDiscriminator(**JUDGE | {"channel_mults": v}), "channel_mults", [1]),
        (lambda v: DDGANDiscriminator(**JUDGE | {"time_channels": v}), "time_channels", 5),
        (lambda v: DDGANDiscriminator(**JUDGE, group_size=v), "group_size", 0),
        (lambda v: MLPGenerator(1, 2, v, 2, 2), "width", 5),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(make, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .* got "):
        make(value)


def test_images_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="is not divisible by 2"):
        DDGANGenerator(**SMALL)(torch.zeros(4, 2, 7, 8), TIMES, latent=torch.zeros(4, 5))
    with pytest.raises(ValueError, match="in_channels = 2, got images of 3"):
        DDGANGenerator(**SMALL)(torch.zeros(4, 3, 8, 8), TIMES, latent=torch.zeros(4, 5))
    with pytest.raises(ValueError, match=r"takes images of 2 channels and at least 2 pixels a side, got \[2, 1, 8"):
        DDGANDiscriminator(**JUDGE)(torch.zeros(4, 2, 1, 8), TIMES, torch.zeros(4, 2, 1, 8))
    with pytest.raises(ValueError, match="x_s and x_t must be of one shape, got"):
        DDGANDiscriminator(**JUDGE)(torch.zeros(4, 2, 8, 8), TIMES, torch.zeros(4, 2, 8, 4))
