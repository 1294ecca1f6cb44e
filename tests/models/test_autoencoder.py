"""First stages: the same computation as in diffusers, latents and codes by hand, one error for what does not fit."""

import copy

import pytest
import torch
from diffusers import AutoencoderKL, VQModel
from networks import awake
from precision import assert_same

from ddpm.interop.diffusers_names import to_theirs
from ddpm.networks.autoencoder import KLAutoencoder, VQAutoencoder

SMALL = {"in_channels": 3, "base_channels": 8, "channel_mults": [1, 2, 2], "num_res_blocks": 2, "num_groups": 4}
LEVELS = {"attention_levels": [2], "z_channels": 5}
THEIRS = {
    "in_channels": 3,
    "out_channels": 3,
    "block_out_channels": [8, 16, 16],
    "layers_per_block": 2,
    "norm_num_groups": 4,
    "latent_channels": 5,
    "down_block_types": ["DownEncoderBlock2D", "DownEncoderBlock2D", "AttnDownEncoderBlock2D"],
    "up_block_types": ["AttnUpDecoderBlock2D", "UpDecoderBlock2D", "UpDecoderBlock2D"],
}


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def translated(ours, theirs):
    theirs.load_state_dict(to_theirs(ours.state_dict()))
    return theirs.double().eval()


X = drawn(2, 3, 16, 24)


@pytest.mark.parametrize("middle", [True, False])
def test_the_gaussian_first_stage_computes_what_that_of_diffusers_does(middle):
    ours = awake(KLAutoencoder(**SMALL, **LEVELS, middle_attention=middle))
    theirs = translated(ours, AutoencoderKL(**THEIRS, mid_block_add_attention=middle))
    posterior = theirs.encode(X).latent_dist
    moments = ours.moments(X)
    assert_same(ours.mean(moments), posterior.mean)
    assert_same(ours.std(moments), posterior.std)
    assert_same(ours(X, torch.zeros(2)), theirs.decode(posterior.mode()).sample)
    assert_same(ours.kl(moments).sum((1, 2, 3)), posterior.kl())


@pytest.mark.parametrize("middle", [True, False])
def test_the_first_stage_of_codes_computes_what_that_of_diffusers_does(middle):
    ours = awake(VQAutoencoder(**SMALL, **LEVELS, middle_attention=middle, num_codes=17))
    theirs = translated(ours, VQModel(**THEIRS, num_vq_embeddings=17, mid_block_add_attention=middle))
    z = ours.moments(X)
    assert_same(z, theirs.encode(X).latents)
    assert_same(ours.decode(z), theirs.decode(z).sample)
    assert_same(ours(X, torch.zeros(2)), theirs(X).sample)


def test_the_nearest_code_is_that_of_all_distances(monkeypatch):
    ours, z = awake(VQAutoencoder(**SMALL, **LEVELS, num_codes=40)), drawn(3, 5, 4, 6)
    distances = torch.cdist(z.permute(0, 2, 3, 1).reshape(-1, 5), ours.codebook.weight)
    assert torch.equal(ours.nearest(z), distances.argmin(1).view(3, 4, 6))
    monkeypatch.setattr("ddpm.networks.autoencoder.DISTANCES", 100)  # two points at a time
    assert torch.equal(ours.nearest(z), distances.argmin(1).view(3, 4, 6))
    assert_same(ours.entries(ours.nearest(z))[1, :, 2, 3], ours.codebook.weight[ours.nearest(z)[1, 2, 3]])


def test_the_kl_is_nothing_for_a_standard_normal_and_by_hand_for_any_other():
    ours = KLAutoencoder(**SMALL, **LEVELS).double()
    assert torch.equal(ours.kl(torch.zeros(2, 10, 3, 3).double()), torch.zeros(2, 5, 3, 3).double())
    mean, log_variance = drawn(2, 5, 3, 3), drawn(2, 5, 3, 3, seed=2)
    posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
    by_hand = torch.distributions.kl_divergence(posterior, torch.distributions.Normal(0.0, 1.0))
    assert_same(ours.kl(torch.cat([mean, log_variance], dim=1)), by_hand)


def test_a_latent_is_its_mean_and_deviation_and_a_code_is_itself():
    moments, normal = drawn(2, 10, 3, 3), drawn(2, 5, 3, 3, seed=2)
    gaussian, codes = KLAutoencoder(**SMALL, **LEVELS), VQAutoencoder(**SMALL, **LEVELS, num_codes=7)
    assert_same(gaussian.draw(moments, normal), moments[:, :5] + (moments[:, 5:] / 2).exp() * normal)
    assert torch.equal(codes.draw(normal, moments[:, :5]), normal)
    assert not codes.std(normal).any()
    assert (gaussian.num_moments, codes.num_moments, gaussian.factor, codes.z_channels) == (10, 5, 4, 5)


def test_the_log_variance_is_bounded():
    ours = KLAutoencoder(**SMALL, **LEVELS).double()
    ours.to_moments.weight.data.zero_()
    for bias, bound in ((-100.0, -30.0), (100.0, 20.0)):
        ours.to_moments.bias.data.fill_(bias)
        assert ours.moments(X)[:, 5:].unique().tolist() == [bound]


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 3, 18, 16), r"image size 18 x 16 is not divisible by 4 .* to 16 x 16 or 20 x 16"),
        ((2, 1, 16, 16), r"the shape of images must be \[3, H, W\] for this first stage, got \[1, 16, 16\]"),
    ],
)
def test_what_a_first_stage_cannot_take_is_one_error(shape, message):
    with pytest.raises(ValueError, match=message):
        KLAutoencoder(**SMALL, **LEVELS).moments(torch.zeros(shape))


@pytest.mark.parametrize("kind", ["gaussian", "codes"])
def test_both_halves_are_compiled_in_one_graph_each_and_an_image_is_for_itself(kind):
    ours = KLAutoencoder(**SMALL, **LEVELS) if kind == "gaussian" else VQAutoencoder(**SMALL, **LEVELS, num_codes=17)
    ours = awake(ours)
    expected, average = ours(X, torch.zeros(2)), copy.deepcopy(ours)
    ours.compile(fullgraph=True, backend="eager")
    assert_same(ours(X, torch.zeros(2)), expected)
    assert_same(average(X[1:], torch.zeros(1)), expected[1:])
    assert ours.state_dict().keys() == average.state_dict().keys()


def test_under_autocast_the_moments_and_the_image_are_float32_and_near():
    ours = awake(KLAutoencoder(**SMALL, **LEVELS)).float()
    with torch.autocast("cpu", torch.bfloat16):
        moments, image = ours.moments(X.float()), ours(X.float(), torch.zeros(2))
    assert moments.dtype == image.dtype == torch.float32
    exact = ours(X.float(), torch.zeros(2))
    assert 0 < (image - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_conditions_are_refused():
    with pytest.raises(ValueError, match=r"a first stage takes no conditions, got label; choose cond=none"):
        KLAutoencoder(**SMALL, **LEVELS)(X.float(), torch.zeros(2), label=torch.zeros(2))
