"""The losses of first stages by hand: distances, penalties, straight-through gradients, the hinge and its balance."""

import types

import pytest
import torch
from precision import assert_same
from torch import nn

from ddpm.base.rng import Rng
from ddpm.base.types import BalancedTerm
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.losses import Example
from ddpm.diffusion.losses.first_stage import FirstStageKL, FirstStageVQ
from ddpm.diffusion.time_sampler import Uniform
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder
from ddpm.training.balanced import BalancedGradients

PROCESS = types.SimpleNamespace(T=1)
SHARED = {"process": PROCESS, "time_sampler": Uniform(), "adversary_start": 2, "adversary_weight": 0.5}
SMALL = {"in_channels": 1, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
X = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1)).double()


class Judge(nn.Module):
    """Linear in the pixels: one logit for each row of the image."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 8).double())

    def forward(self, images):
        return (images @ self.weight)[..., None]


def distance(x, y):
    """Stands for a perceptual distance: `[B]`."""
    return (x - y).square().flatten(1).sum(1)


def kl_loss(**others):
    return FirstStageKL(**SHARED | {"kl_weight": 0.01, "perceptual_weight": 0.1} | others)


def vq_loss(**others):
    return FirstStageVQ(**SHARED | {"codebook_weight": 0.25, "perceptual_weight": 0.1} | others)


def example(step):
    return Example(X, {}, Rng(0, "test").at(0, torch.arange(3)), step)


def denoiser(network):
    return NetworkDenoiser(network, None)


@pytest.fixture
def gaussian():
    torch.manual_seed(0)
    return KLAutoencoder(**SMALL, z_channels=2).double()


@pytest.fixture
def coded():
    torch.manual_seed(0)
    network = VQAutoencoder(**SMALL, z_channels=2, num_codes=5).double()
    nn.init.normal_(network.codebook.weight)
    return network


def test_the_gaussian_loss_is_a_sum_over_the_image_and_the_kl_with_its_weight(gaussian):
    loss = kl_loss(perceptual=distance)
    terms = loss.turns["network"](denoiser(gaussian), example(0))
    moments = gaussian.moments(X)
    z = gaussian.draw(moments, example(0).draws.normal("latent", (2, 4, 4)).double())
    found = gaussian.decode(z)
    nll = ((X - found).abs() + 0.1 * distance(X, found)[:, None, None, None]).sum((1, 2, 3))
    kl = (moments[:, :2].square() + moments[:, 2:].exp() - 1 - moments[:, 2:]).sum((1, 2, 3)) / 2
    assert_same(terms.total, nll + 0.01 * kl)
    assert_same(terms.parts["kl"], kl)
    assert terms.balanced is None
    assert list(loss.turns) == ["network"]


def test_a_learned_scale_has_its_minimum_at_the_mean_error():
    """d/ds (E e^-s + n s) = 0 at e^s = E / n, the scale of a Laplace distribution."""
    network = KLAutoencoder(**SMALL, z_channels=2, learn_log_scale=True).double()
    loss, error = kl_loss(), X.abs()
    network.log_scale.data.copy_(error.mean().log())
    loss.distance(network, error).mean().backward()
    assert abs(network.log_scale.grad) < 1e-10
    assert "log_scale" not in KLAutoencoder(**SMALL, z_channels=2).state_dict()


def test_the_loss_with_codes_is_a_mean_over_the_image_and_over_the_code(coded):
    terms = vq_loss(perceptual=distance).turns["network"](denoiser(coded), example(0))
    z, found = coded.moments(X), coded(X, torch.zeros(3))
    code = coded.entries(coded.nearest(z))
    nll = ((X - found).abs().mean((1, 2, 3))) + 0.1 * distance(X, found)
    assert_same(terms.total, nll + 1.25 * (z - code).square().mean((1, 2, 3)))


def test_the_gradient_passes_the_quantiser_unchanged_with_weight_1_at_the_latent_and_a_quarter_at_the_codes(coded):
    z = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(2)).double().requires_grad_()
    coded.moments, coded.decoded = (lambda images: z), (lambda quantised: 3 * quantised)
    found = vq_loss().reconstruct(coded, X, example(0).draws)
    code = coded.entries(coded.nearest(z)).detach()
    assert_same(found.image, 3 * code)
    (passed,) = torch.autograd.grad(found.image.sum(), z, retain_graph=True)
    assert_same(passed, torch.full_like(z, 3))
    of_z, of_codes = torch.autograd.grad(found.penalty.sum(), (z, coded.codebook.weight))
    each = 2 * (z - code).detach() / 32  # a mean over 2 x 4 x 4 numbers
    assert_same(of_z, each)
    by_code = (
        torch.zeros(5, 2).double().index_add(0, coded.nearest(z).flatten(), each.permute(0, 2, 3, 1).flatten(0, 2))
    )
    assert_same(of_codes, -0.25 * by_code)


@pytest.mark.parametrize("kind", ["gaussian", "coded"])
def test_the_adversary_learns_by_the_hinge_from_its_start_and_nothing_before(request, kind):
    network, judge = request.getfixturevalue(kind), Judge()
    loss = (kl_loss if kind == "gaussian" else vq_loss)(adversary=judge)
    assert list(loss.turns) == ["network", "adversary"], "the adversary meets the network that has just learned"
    early = loss.turns["adversary"](denoiser(network), example(1))
    early.total.mean().backward()
    assert not early.total.any()
    assert not judge.weight.grad.any(), "zeros, with which the optimizer still counts its step"
    assert early.parts["logit_real"].isnan().all()
    terms = loss.turns["adversary"](denoiser(network), example(2))
    fake = loss.reconstruct(network, X, example(2).draws).image
    hinge = [(1 - judge(X)).clamp(min=0), (1 + judge(fake)).clamp(min=0)]
    assert_same(terms.total, sum(each.flatten(1).mean(1) for each in hinge) / 2)
    network.zero_grad()
    terms.total.mean().backward()
    assert all(parameter.grad is None for parameter in network.parameters())


def test_the_balanced_term_is_the_mean_logit_of_the_patches_and_is_not_computed_before_its_start(gaussian):
    loss = kl_loss(adversary=Judge())
    early, terms = (loss.turns["network"](denoiser(gaussian), example(step)) for step in (1, 2))
    assert early.balanced.values is None
    assert early.parts["logit"].isnan().all()
    found = loss.reconstruct(gaussian, X, example(2).draws).image
    assert_same(terms.balanced.values, -loss.adversary(found).mean((1, 2, 3)))
    assert_same(terms.total, early.total), "the term is apart"
    assert terms.balanced.at is gaussian.decoder.out.weight


def decoder_losses(weight, h):
    """Of a linear decoder: of the error to 1, and of a linear adversary."""
    found = h @ weight
    return (found - 1).square().mean(1), 3 * found.mean(1)


@pytest.mark.parametrize("num_parts", [1, 2])
def test_the_balance_is_the_quotient_of_the_gradients_of_the_whole_step(num_parts):
    generator = torch.Generator().manual_seed(0)
    layer, other = (nn.Parameter(torch.randn(4, 5, generator=generator).double()) for _ in range(2))
    h = torch.randn(6, 4, generator=generator).double()
    network = nn.ParameterList([layer, other])
    own, apart = (
        torch.autograd.grad(loss.mean(), layer)[0] for loss in (decoder_losses(layer, h)[n] for n in range(2))
    )
    expected = 0.5 * own.norm() / (apart.norm() + 1e-4)
    gradients = BalancedGradients(network)
    for part in h.chunk(num_parts):
        total, values = decoder_losses(layer, part)
        gradients.add(BalancedTerm(values, layer, 0.5), values.mean() / num_parts)
        (total.mean() / num_parts).backward()
    weight = gradients.merge(1, 1.0)
    assert_same(weight, expected)
    assert_same(layer.grad, own + expected * apart)
    assert not other.grad.any()


def test_the_balance_is_bounded_and_the_same_under_loss_scaling():
    large, small = torch.full((3,), 1e6).double(), torch.full((3,), 1e-9).double()
    term = BalancedTerm(None, nn.Parameter(torch.zeros(1)), 0.5)
    assert term.weight(large, small) == 0.5 * 1e4
    assert_same(term.weight(large * 1024, large * 1024, scale=1024.0), term.weight(large, large))


@pytest.mark.parametrize(
    ("field", "value"),
    [("kl_weight", -1.0), ("perceptual_weight", "much"), ("adversary_start", 0.5), ("adversary_weight", -0.1)],
)
def test_a_bad_setting_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field} must be "):
        kl_loss(**{field: value})


def test_a_first_stage_knows_no_times():
    with pytest.raises(ValueError, match=r"schedule\.num_timesteps must be 1 for a first stage"):
        kl_loss(process=types.SimpleNamespace(T=1000))
