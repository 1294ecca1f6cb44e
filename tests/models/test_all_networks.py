"""What holds for every network: each image for itself, gradients to all weights, float32 out; the published sizes."""

import copy
import re

import pytest
import torch
from networks import awake, built, num_parameters
from precision import assert_same

from ddpm.networks import UNet
from ddpm.networks.attention import Attention
from ddpm.networks.caption_unet import CaptionUNet
from ddpm.networks.class_token_unet import ClassTokenUNet
from ddpm.networks.classifier import Classifier
from ddpm.networks.ddgan_generator import DDGANGenerator
from ddpm.networks.ddgan_mlp import MLPGenerator
from ddpm.networks.mlp import MLP

SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
ADM = {**SMALL, "head_channels": 4, "scale_shift": True, "resample": "block", "convention": "adm"}
ALL = {
    **ADM,
    "attention_levels": [1],
    "self_condition": True,
    "num_classes": 5,
    "concat_channels": True,
    "token_channels": 6,
}
LATENT = {**SMALL, "head_channels": 4, "convention": "adm", "transformer_depth": 2, "token_channels": 6}
IDDPM = {**SMALL, "scale_shift": True, "num_timesteps": 4000, "self_condition": True}
TIMES = torch.tensor([0, 17, 999])


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X = drawn(3, 2, 8, 16)
TOLD = {
    "x0_guess": drawn(3, 2, 8, 16, seed=2),
    "label": torch.tensor([4, 0, -1]),
    "concat": drawn(3, 2, 4, 8, seed=3),
    "tokens": drawn(3, 7, 6, seed=4),
}
GENERATOR = {**SMALL, "attention_levels": [1], "latent_channels": 5, "style_channels": 6, "num_mapping_layers": 1}
GENERATOR.pop("num_groups")
DRAWN = {"latent": drawn(3, 5, seed=5), "label": TOLD["label"]}
WORDS = {"words": torch.tensor([[1, 2, 3], [0, 0, 5], [4, 5, 1]])}
NETWORKS = {
    "ddpm": (lambda: UNet(**SMALL | {"attention_levels": [0], "num_heads": 2}), {}),
    "iddpm": (lambda: UNet(**IDDPM), {"x0_guess": TOLD["x0_guess"]}),
    "adm, told everything": (lambda: UNet(**ALL), TOLD),
    "transformers": (lambda: UNet(**LATENT, attention_levels=[1]), {"tokens": TOLD["tokens"]}),
    "class tokens": (lambda: ClassTokenUNet(**LATENT, num_classes=5, null_embedding=True), {"label": TOLD["label"]}),
    "classifier": (lambda: Classifier(**ADM, attention_levels=[1], patch_size=2, size=[8, 16], num_classes=5), {}),
    "prompted": (lambda: CaptionUNet(**SMALL, num_words=5, num_tokens=3, token_channels=6), WORDS),
    "mlp": (lambda: MLP(2, [8, 16], 16, 2), {}),
    "ddgan": (lambda: DDGANGenerator(**GENERATOR, num_classes=5), DRAWN),
    "ddgan of points": (lambda: MLPGenerator(2, [8, 16], 16, 2, 5, num_classes=5), DRAWN),
}


@pytest.fixture(params=NETWORKS)
def network(request):
    """A network and what it is told of the three images."""
    make, told = NETWORKS[request.param]
    return awake(make()), told


def test_an_image_comes_out_the_same_whatever_else_is_in_the_batch(network):
    network, told = network
    together, order = network(X, TIMES, **told), torch.tensor([2, 0, 1])
    assert_same(network(X[order], TIMES[order], **{k: tensor[order] for k, tensor in told.items()}), together[order])
    for i in range(3):
        alone = network(X[i : i + 1], TIMES[i : i + 1], **{k: tensor[i : i + 1] for k, tensor in told.items()})
        assert_same(alone, together[i : i + 1])


def test_every_parameter_and_the_image_is_reached_by_the_gradient(network):
    network, told = network
    x = X.clone().requires_grad_(True)
    network.requires_grad_(True)(x, TIMES, **told).square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().max() > 0]
    if isinstance(network, ClassTokenUNet):  # attention to one token has the weight 1
        still = [name for name in still if not re.search(r"layers\.\d\.(norm2|cross\.query|cross\.key)\.", name)]
    assert still == []
    assert (x.grad.abs().amax(1) > 0).all()


def test_the_time_matters_and_may_be_a_fraction(network):
    network, told = network
    at = {time: network(X, torch.full((3,), time), **told) for time in (7, 7.0, 7.01, 8)}
    assert at[7].equal(at[7.0])
    assert (at[7] - at[8]).abs().max() > 1e-5
    assert 0 < (at[7] - at[7.01]).abs().max() < 0.1 * (at[7] - at[8]).abs().max()


def test_under_autocast_the_output_is_float32_and_near_it(network):
    network, told = network
    given = {k: tensor.float() if tensor.is_floating_point() else tensor for k, tensor in {"x": X, **told}.items()}
    with torch.autocast("cpu", torch.bfloat16):
        rough = network.float()(time=TIMES, **given)
    exact = network(time=TIMES, **given)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.abs().mean()  # bfloat16 rounds by up to 2^-9 at each layer


def test_channels_last_changes_the_memory_and_not_the_numbers(network):
    network, told = network
    expected = network(X, TIMES, **told)
    assert_same(network.to(memory_format=torch.channels_last)(X, TIMES, **told), expected)


def test_compilation_sees_one_graph_and_leaves_copies_alone(network):
    network, told = network
    expected, average = network(X, TIMES, **told), copy.deepcopy(network)
    network.compile(fullgraph=True, backend="eager")  # the inductor takes a minute
    assert_same(network(X, TIMES, **told), expected)
    assert average(X, TIMES, **told).equal(expected)
    assert network.state_dict().keys() == average.state_dict().keys()


@pytest.mark.parametrize("settings", [ALL, IDDPM, LATENT], ids=["adm", "iddpm", "latent"])
def test_the_settings_of_a_unet_build_it_again(settings):
    network = UNet(**settings | {"attention_levels": (1,), "out_channels": 4, "dropout": 0.1, "patch_size": 2})
    assert UNet(**network.settings).settings == network.settings
    assert {k: p.shape for k, p in UNet(**network.settings).state_dict().items()} == {
        k: p.shape for k, p in network.state_dict().items()
    }


@pytest.mark.parametrize(
    ("words", "changes", "published"),
    [  # those of Ho et al. also counted in diffusers' UNet2DModel
        ("model=ddpm_cifar10", {}, 35_746_307),
        ("model=ddpm_256", {}, 113_673_219),
        ("model=ddpm_256", {"out_channels": 6}, 113_676_678),  # as that of Nichol and Dhariwal for LSUN
        ("model=iddpm_cifar10", {}, 52_546_438),
        ("model=iddpm_cifar10", {"out_channels": 3}, 52_542_979),
        ("model=iddpm_imagenet64", {}, 121_063_942),
        ("model=iddpm_imagenet64", {"base_channels": 192, "num_classes": 1000}, 273_049_350),
        ("model=adm_64", {"num_classes": 1000, "out_channels": 6}, 295_904_454),
        ("model=adm_128", {"num_classes": 1000, "out_channels": 6}, 421_529_606),
        ("model=adm_256", {"num_classes": 1000, "out_channels": 6}, 553_838_086),
        ("model=adm_256", {"out_channels": 6}, 552_814_086),
        ("model=adm_classifier_64", {"num_classes": 1000, "size": 64}, 65_438_568),
        ("model=adm_classifier_128", {"num_classes": 1000, "size": 128}, 42_568_040),
        ("model=adm_classifier_256", {"num_classes": 1000, "size": 256}, 54_096_360),
        ("experiment=anoddpm_256", {"in_channels": 1}, 131_649_793),
        (
            "model=ldm_celebahq",
            {},
            274_056_163,
        ),  # counted in the authors' classes, as the next three
        ("model=ldm_church", {}, 294_966_916),
        ("model=ldm_cin256", {"num_classes": 1000}, 394_984_196 + 1000 * 512),  # the U-Net and its table of classes
        ("model=ldm_cin256_v2", {"num_classes": 1000}, 400_920_579 + 1001 * 512),
        ("model=ldm_superres", {"concat_channels": True}, 113_622_563),  # likewise, as the next two
        ("model=ldm_inpaint", {"concat_channels": 4}, 387_245_827),
        ("model=ldm_semantic", {"num_labels": 182}, 215_229_315 + 546),  # the U-Net and the convolution of the labels
        ("model=ddgan_cifar10", {}, 48_432_515),  # counted in the authors' classes
        ("model=ddgan_256", {}, 39_726_979),
        ("model=autoencoder_kl_f4", {}, 55_312_063),  # likewise, and in diffusers
        ("model=autoencoder_kl_f8", {}, 83_653_863),
        ("model=autoencoder_kl_f16", {}, 69_610_963),
        ("model=autoencoder_kl_f32", {}, 103_880_131),
        ("model=autoencoder_vq_f4", {}, 55_322_782),
        ("model=autoencoder_vq_f4_noattn", {}, 53_219_486),
        ("model=autoencoder_vq_f8", {}, 67_717_295),
        ("model=autoencoder_vq_f8", {"num_codes": 256}, 67_652_783),
        ("model=autoencoder_vq_f16", {}, 69_593_371),
    ],
)
def test_the_published_networks_have_their_published_number_of_parameters(config, words, changes, published):
    assert num_parameters(built(config("train", words, "data.channels=3").model, **changes)) == published


@pytest.mark.parametrize(
    ("words", "size", "sides", "num_res_blocks", "num_heads"),
    [
        ("model=ddpm_cifar10", 32, [16], 2, lambda width: 1),
        ("model=iddpm_cifar10", 32, [16, 8], 3, lambda width: 4),
        ("model=iddpm_imagenet64", 64, [16, 8], 3, lambda width: 4),
        ("model=adm_64", 64, [32, 16, 8], 3, lambda width: width / 64),
        ("model=adm_128", 128, [32, 16, 8], 2, lambda width: width / 64),
        ("model=adm_256", 256, [32, 16, 8], 2, lambda width: width / 64),
        ("experiment=anoddpm_256", 256, [32, 16, 8], 2, lambda width: 2),
        ("model=ldm_celebahq", 64, [32, 16, 8], 2, lambda width: width / 32),
        ("model=ldm_church", 32, [32, 16, 8, 4], 2, lambda width: 8),
    ],
)
def test_the_published_heads_attend_at_the_published_sides(config, words, size, sides, num_res_blocks, num_heads):
    network, found = built(config("train", words).model), []
    for name, module in network.named_modules():
        if isinstance(module, Attention):
            assert module.num_heads == num_heads(module.norm.num_channels)
            way, number = name.split(".")[:2]
            finest = {"down": int(number), "up": len(network.up) - 1 - int(number), "middle": len(network.down) - 1}
            found.append((way, size >> finest[way]))
    expected = [(way, side) for way in ("down", "up") for side in sides for _ in range(num_res_blocks + (way == "up"))]
    assert sorted(found) == sorted([*expected, ("middle", size >> len(network.down) - 1)])


@pytest.mark.parametrize(
    ("words", "changes", "shape", "low", "high"),
    [
        ("model=unet_tiny", {}, (1, 28, 28), 0.6e6, 0.7e6),
        ("model=unet_narrow", {}, (1, 28, 28), 0.65e6, 0.67e6),
        ("model=ldm_tiny", {}, (1, 7, 7), 0.8e6, 1.0e6),
        ("model=classifier_tiny", {"num_classes": 10}, (1, 28, 28), 0.2e6, 0.4e6),
        ("model=caption_unet_tiny", {"num_words": 20, "num_tokens": 3}, (1, 28, 28), 0.7e6, 0.9e6),
        ("experiment=swirl", {}, (1, 1, 2), 0.15e6, 0.25e6),
        ("model=autoencoder_tiny", {}, (1, 28, 28), 0.6e6, 0.7e6),
        ("model=autoencoder_vq_tiny", {"in_channels": 3}, (3, 32, 32), 0.6e6, 0.7e6),
        ("model=autoencoder_tiny", {"channel_mults": [1]}, (1, 28, 28), 0.1e6, 0.2e6),
    ],
)
def test_the_small_networks_take_their_data_as_they_are_and_are_small(config, words, changes, shape, low, high):
    network = built(config("train", words).model, device="cpu", **changes)
    assert network(torch.randn(2, *shape), torch.tensor([0, 999])).shape[0] == 2
    assert low < num_parameters(network) < high


def test_the_configured_network_follows_the_number_of_timesteps_of_its_schedule(config):
    made = config("train", "model=iddpm_cifar10", "schedule.num_timesteps=250")
    assert built(made.model).settings["num_timesteps"] == 250
