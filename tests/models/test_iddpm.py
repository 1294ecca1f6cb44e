"""The networks of Improved DDPM: published sizes, adaptive norm, heads, scale of time; and self-conditioning."""

from pathlib import Path

import pytest
import torch
from diffusers.models.attention_processor import Attention as TheirAttention
from diffusers.models.resnet import ResnetBlock2D
from networks import awake
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.networks import UNet
from ddpm.networks.attention import Attention
from ddpm.networks.blocks import ResBlock

CONF = Path(__file__).parents[2] / "conf" / "model"
SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
TIMES = torch.tensor([0, 1, 500])


def images(channels=2, seed=1):
    return torch.randn(3, channels, 8, 16, generator=torch.Generator().manual_seed(seed)).double()


def settings_of(name, num_timesteps=4000):
    parts = {"data": {"channels": 3}, "schedule": {"num_timesteps": num_timesteps}}
    config = OmegaConf.create(parts | {"model": OmegaConf.load(CONF / f"{name}.yaml")})
    settings = OmegaConf.to_container(config, resolve=True)["model"]
    assert settings.pop("_target_") == "ddpm.networks.unet.UNet"
    return settings


def num_parameters(**settings):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in UNet(**settings).parameters())


# Improved DDPM


@pytest.mark.parametrize(
    ("name", "changes", "published"),
    [
        ("iddpm_cifar10", {}, 52_546_438),
        ("iddpm_cifar10", {"out_channels": 3}, 52_542_979),
        ("iddpm_imagenet64", {}, 121_063_942),
        ("iddpm_imagenet64", {"base_channels": 192}, 273_049_350 - 1000 * 4 * 192),  # less the vectors of 1,000 classes
        ("ddpm_256", {"out_channels": 6}, 113_676_678),  # theirs for LSUN adds the time, as Ho et al. 2020 do
    ],
)
def test_the_published_networks_have_their_published_number_of_parameters(name, changes, published):
    assert num_parameters(**settings_of(name) | changes) == published


@pytest.mark.parametrize(("name", "size"), [("iddpm_cifar10", 32), ("iddpm_imagenet64", 64)])
def test_four_heads_attend_at_16_and_8_pixels_and_in_the_middle(name, size):
    with torch.device("meta"):
        network = UNet(**settings_of(name))
    attended = [(part, m) for part, m in network.named_modules() if isinstance(m, Attention)]
    assert {m.num_heads for _, m in attended} == {4}
    counts = {}
    for part, _ in attended:
        way, number = part.split(".")[:2]
        finest = {"down": int(number), "up": len(network.up) - 1 - int(number), "middle": "middle"}[way]
        key = finest if way == "middle" else (way, size >> finest)
        counts[key] = counts.get(key, 0) + 1
    assert counts == {("down", 16): 3, ("down", 8): 3, "middle": 1, ("up", 8): 4, ("up", 16): 4}


@pytest.mark.parametrize("out_channels", [8, 12])
def test_the_adaptive_norm_is_that_of_diffusers(out_channels):
    ours = awake(ResBlock(8, out_channels, emb_channels=16, dropout=0.0, num_groups=4, scale_shift=True))
    sizes = {"in_channels": 8, "out_channels": out_channels, "temb_channels": 16, "groups": 4, "eps": 1e-6}
    theirs = ResnetBlock2D(**sizes, time_embedding_norm="scale_shift", skip_time_act=True)
    weights = {
        key.replace("time", "time_emb_proj").replace("shortcut", "conv_shortcut"): weight
        for key, weight in ours.state_dict().items()
    }
    theirs.double().load_state_dict(weights)
    x, emb = images(channels=8), torch.randn(3, 16, generator=torch.Generator().manual_seed(2)).double()
    assert_same(ours(x, emb), theirs(x, emb))


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_attention_of_several_heads_is_that_of_diffusers(num_heads):
    ours = awake(Attention(8, num_heads, num_groups=4))
    shape = {"query_dim": 8, "heads": num_heads, "dim_head": 8 // num_heads}
    theirs = TheirAttention(**shape, norm_num_groups=4, eps=1e-6, bias=True, residual_connection=True)
    weights = {key: weight.flatten(1) if weight.dim() > 1 else weight for key, weight in ours.state_dict().items()}
    for kind in ("weight", "bias"):
        parts = weights.pop(f"qkv.{kind}").chunk(3)
        weights |= {f"to_{name}.{kind}": part for name, part in zip("qkv", parts, strict=True)}
        weights |= {f"group_norm.{kind}": weights.pop(f"norm.{kind}"), f"to_out.0.{kind}": weights.pop(f"out.{kind}")}
    theirs.double().load_state_dict(weights)
    x = images(channels=8)
    assert_same(ours(x), theirs(x))


def test_a_block_with_an_adaptive_norm_starts_as_the_identity():
    x = images(channels=8)
    block = ResBlock(8, 8, emb_channels=16, dropout=0.0, num_groups=4, scale_shift=True).double()
    assert block(x, torch.ones(3, 16).double()).equal(x)


def test_where_neither_scale_nor_shift_is_left_the_adaptive_norm_is_the_plain_one_without_time():
    adaptive, plain = (
        awake(ResBlock(8, 8, emb_channels=16, dropout=0.0, num_groups=4, scale_shift=scale_shift))
        for scale_shift in (True, False)
    )
    own = {key: weight for key, weight in adaptive.state_dict().items() if not key.startswith("time.")}
    plain.load_state_dict(own, strict=False)
    for block in (adaptive, plain):
        for parameter in block.time.parameters():
            parameter.zero_()
    emb = torch.ones(3, 16, dtype=torch.float64)
    assert_same(adaptive(images(8), emb), plain(images(8), emb))


def test_times_of_4000_are_seen_as_quarters_of_those_of_1000():
    of_4000, as_they_are = (awake(UNet(**SMALL, num_timesteps=number)) for number in (4000, None))
    for time in (TIMES, torch.tensor([0.5, 3.75, 999.75])):  # a quarter is exact in binary
        assert of_4000(images(), 4 * time).equal(as_they_are(images(), time))


def test_a_thousand_timesteps_change_nothing():
    of_1000, as_they_are = (awake(UNet(**SMALL, num_timesteps=number)) for number in (1000, None))
    assert of_1000(images(), TIMES).equal(as_they_are(images(), TIMES))


def test_the_configured_network_follows_the_number_of_timesteps_of_its_schedule():
    assert settings_of("iddpm_cifar10", num_timesteps=250)["num_timesteps"] == 250


# Self-conditioning


@pytest.mark.parametrize("patch_size", [1, 2])
def test_self_conditioning_costs_the_stems_weights_for_as_many_channels_again(patch_size):
    settings = SMALL | {"patch_size": patch_size}
    more = num_parameters(**settings, self_condition=True) - num_parameters(**settings)
    assert more == 3 * 3 * (2 * patch_size**2) * 8  # taps, channels of the guess, base_channels


@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_guess_that_weighs_nothing_leaves_the_plain_network(patch_size):
    conditioned = awake(UNet(**SMALL, patch_size=patch_size, self_condition=True))
    plain = UNet(**SMALL, patch_size=patch_size).double()
    weights = conditioned.state_dict()
    for_x, for_guess = weights["stem.weight"].chunk(2, dim=1)
    plain.load_state_dict(weights | {"stem.weight": for_x})
    guess = images(seed=2)
    assert not torch.allclose(conditioned(images(), TIMES, x0_guess=guess), plain(images(), TIMES))
    for_guess.zero_()
    assert_same(conditioned(images(), TIMES, x0_guess=guess), plain(images(), TIMES))


def test_no_guess_is_a_guess_of_zeros():
    network = awake(UNet(**SMALL, self_condition=True))
    assert network(images(), TIMES).equal(network(images(), TIMES, x0_guess=torch.zeros_like(images())))


def test_a_network_says_whether_it_takes_a_guess_and_refuses_one_otherwise():
    plain, conditioned = UNet(**SMALL), UNet(**SMALL, self_condition=True)
    assert (plain.self_condition, conditioned.self_condition) == (False, True)
    with pytest.raises(ValueError, match="takes no conditions, got x0_guess"):
        plain(images(), TIMES, x0_guess=images())
    with pytest.raises(ValueError, match="takes no conditions but x0_guess, got label"):
        conditioned(images(), TIMES, x0_guess=images(), label=TIMES)


def test_a_guess_of_another_shape_is_refused():
    network = UNet(**SMALL, self_condition=True)
    with pytest.raises(ValueError, match=r"x0_guess must be of the images' shape \[3, 2, 8, 16\], got \[1, 2, 8, 16\]"):
        network(images(), TIMES, x0_guess=images()[:1])


# All of it


def test_every_parameter_is_reached_by_the_gradient_without_a_guess_too():
    network = awake(UNet(**SMALL, scale_shift=True, num_timesteps=4000, self_condition=True)).requires_grad_(True)
    network(images(), TIMES, x0_guess=images(seed=2)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if not p.grad.abs().max() > 0] == []
    network.zero_grad()
    network(images(), TIMES).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []  # which DDP would wait for


def test_the_settings_build_the_same_network_again():
    network = awake(UNet(**SMALL, scale_shift=True, num_timesteps=250, self_condition=True, out_channels=4))
    again = UNet(**network.settings).double()
    again.load_state_dict(network.state_dict())
    guess = images(seed=2)
    assert again(images(), TIMES, x0_guess=guess).equal(network(images(), TIMES, x0_guess=guess))


def test_under_autocast_the_output_is_float32_and_near_it():
    network = awake(UNet(**SMALL, scale_shift=True, self_condition=True)).float()
    x, guess = images().float(), images(seed=2).float()
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(x, TIMES, x0_guess=guess)
    exact = network(x, TIMES, x0_guess=guess)
    assert rough.dtype == torch.float32
    assert 0 < (rough - exact).abs().mean() < 0.05 * exact.abs().mean()  # bfloat16 rounds by up to 2^-9 at each layer


@pytest.mark.parametrize(
    ("name", "value", "remedy"),
    [
        ("scale_shift", "yes", "true or false"),
        ("self_condition", 1, "true or false"),
        ("num_timesteps", 0, "a positive integer"),
        ("num_timesteps", 250.0, "a positive integer"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(name, value, remedy):
    with pytest.raises(ValueError, match=f"^{name} must be {remedy}, got "):
        UNet(**SMALL | {name: value})
