"""The networks of ADM: published sizes, classes, heads, blocks that resample, its conventions; small images, tokens."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from diffusers.models.attention_processor import Attention as TheirAttention
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.resnet import ResnetBlock2D
from networks import awake
from precision import assert_same
from torch import nn

from ddpm.interop import diffusers
from ddpm.interop.diffusers_names import to_theirs
from ddpm.networks import UNet
from ddpm.networks.attention import Attention, CrossAttention
from ddpm.networks.blocks import Downsample, ResBlock
from ddpm.networks.embeddings import cosinusoid

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
TIMES = torch.tensor([0, 17, 999])
LABELS = torch.tensor([4, 0, -1])


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


def images(channels=2, seed=1, size=(8, 16)):
    return drawn(3, channels, *size, seed=seed)


def told():
    """All that a network can be told at once, of three images."""
    return {
        "x0_guess": images(seed=2),
        "label": LABELS,
        "concat": images(seed=3, size=(4, 8)),
        "tokens": drawn(3, 7, 6, seed=4),
    }


# Against another program


@pytest.mark.parametrize("scale_shift", [False, True])
@pytest.mark.parametrize(("way", "resize"), [("down", nn.AvgPool2d(2)), ("up", nn.Upsample(scale_factor=2))])
def test_a_block_that_resamples_is_that_of_diffusers(way, resize, scale_shift):
    sizes = {"emb_channels": 16, "dropout": 0.0, "num_groups": 4, "norm_eps": 1e-5}
    ours = awake(ResBlock(8, 12, **sizes, scale_shift=scale_shift, resize=resize))
    sizes = {"in_channels": 8, "out_channels": 12, "temb_channels": 16, "groups": 4, "eps": 1e-5, way: True}
    theirs = ResnetBlock2D(**sizes, time_embedding_norm="scale_shift" if scale_shift else "default", skip_time_act=True)
    weights = {
        key.replace("time", "time_emb_proj").replace("shortcut", "conv_shortcut"): weight
        for key, weight in ours.state_dict().items()
    }
    theirs.double().load_state_dict(weights)
    x, emb = images(channels=8), drawn(3, 16, seed=2)
    assert_same(ours(x, emb), theirs(x, emb))


KINDS = {
    "blocks that resample, attention at all levels": ({}, [0, 1], "block"),
    "blocks that resample, attention at one level": ({}, [1], "block"),
    "improved diffusion: strided convolutions": ({"resample": "conv"}, [1], "conv"),
    "no scale and shift": ({"scale_shift": False}, [0, 1], "block"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_network_is_the_one_that_diffusers_builds_of_such_parts(kind):
    changes, attended, resample = KINDS[kind]
    ours = awake(UNet(**ADM | {"num_classes": 5, "attention_levels": attended, "out_channels": 4, **changes}))
    plain = "{}Block2D" if resample == "conv" else "Resnet{}sampleBlock2D"
    kinds = ["Attn{}Block2D" if level in attended else plain for level in range(2)]
    type_ = {"conv": "conv", "block": "resnet"}[resample]
    theirs = UNet2DModel(
        in_channels=2,
        out_channels=4,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=[each.format("Down") for each in kinds],
        up_block_types=[each.format("Up") for each in reversed(kinds)],
        downsample_type=type_,
        upsample_type=type_,
        attention_head_dim=4,
        norm_num_groups=4,
        attn_norm_num_groups=4,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
        downsample_padding=1,
        resnet_time_scale_shift="scale_shift" if ours.settings["scale_shift"] else "default",
        num_class_embeds=5,
    )
    weights = ours.state_dict()
    table = weights.pop("label.weight")
    theirs.double().load_state_dict(to_theirs(weights) | {"class_embedding.weight": table})
    label = torch.tensor([4, 0, 2])
    expected = theirs(images(), TIMES, class_labels=label).sample
    assert_same(ours(images(), TIMES, label=label), expected)


def test_the_cosines_come_first_and_the_frequencies_end_short_of_one_in_10000():
    theirs = get_timestep_embedding(TIMES, 64, flip_sin_to_cos=True, downscale_freq_shift=0)
    assert cosinusoid(TIMES, 64).equal(theirs)  # both round in the order of the published code


@pytest.mark.parametrize(("convention", "eps"), [("ddpm", 1e-6), ("adm", 1e-5)])
def test_all_norms_have_the_small_number_of_their_convention(convention, eps):
    norms = [m for m in UNet(**ALL | {"convention": convention}).modules() if isinstance(m, nn.GroupNorm)]
    assert {norm.eps for norm in norms} == {eps}


@pytest.mark.parametrize("tap", range(3))
def test_downsampling_may_pad_both_sides_as_pytorch_does(tap):
    downsample = Downsample(1, pads_both_sides=True)
    downsample.conv.weight.data.zero_()[0, 0, tap, tap] = 1
    x = torch.arange(16.0).view(1, 1, 4, 4)
    assert downsample(x).equal(F.pad(x, (1, 1, 1, 1))[..., tap : tap + 4 : 2, tap : tap + 4 : 2])


@pytest.mark.parametrize("num_heads", [1, 4])
def test_cross_attention_is_that_of_diffusers(num_heads):
    ours = awake(CrossAttention(8, 6, num_heads, num_groups=4, norm_eps=1e-5))
    shape = {"query_dim": 8, "cross_attention_dim": 6, "heads": num_heads, "dim_head": 8 // num_heads}
    theirs = TheirAttention(**shape, norm_num_groups=4, eps=1e-5, bias=True, residual_connection=True)
    names = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
    weights = {}
    for key, weight in ours.state_dict().items():
        name, kind = key.split(".")
        weights[f"{names[name]}.{kind}"] = weight.flatten(1) if weight.dim() > 1 else weight
    theirs.double().load_state_dict(weights)
    x, tokens = images(channels=8), drawn(3, 7, 6, seed=4)
    assert_same(ours(x, tokens), theirs(x, encoder_hidden_states=tokens))


# Classes


def with_and_without_classes(**changes):
    """Two networks of one seed that differ in the table of classes alone."""
    networks = []
    for num_classes in (5, None):
        torch.manual_seed(7)
        networks.append(UNet(**ADM | changes, num_classes=num_classes).double())
    return networks


def test_a_table_of_classes_changes_no_other_initial_weight():
    conditional, plain = with_and_without_classes(attention_levels=[0])
    weights = conditional.state_dict()
    table = weights.pop("label.weight")
    assert table.shape == (5, 4 * 8)
    assert list(weights) == list(plain.state_dict())
    for key, weight in plain.state_dict().items():
        assert weight.equal(weights[key]), key


def test_the_table_starts_as_normal_numbers():
    table = UNet(**SMALL | {"num_classes": 1000}).label.weight
    assert table.mean().item() == pytest.approx(0, abs=5 / table.numel() ** 0.5)
    assert table.std().item() == pytest.approx(1, abs=5 / (2 * table.numel()) ** 0.5)


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("label", [None, torch.full((3,), -1)], ids=["no label", "label -1"])
def test_no_class_is_exactly_the_network_without_classes(label, autocast):
    conditional, plain = with_and_without_classes()
    awake(conditional)
    plain.load_state_dict({key: weight for key, weight in conditional.state_dict().items() if key != "label.weight"})
    x = images().float()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        assert conditional.float()(x, TIMES, label=label).equal(plain.float()(x, TIMES))


def test_a_class_is_a_vector_added_to_the_embedded_time():
    conditional, plain = with_and_without_classes()
    awake(conditional)
    weights = dict(conditional.state_dict())
    vector = weights.pop("label.weight")[3]
    weights["time.linear2.bias"] = weights["time.linear2.bias"] + vector
    plain.load_state_dict(weights)
    found = conditional(images(), TIMES, label=torch.full((3,), 3))
    assert_same(found, plain(images(), TIMES))
    assert not torch.allclose(found, conditional(images(), TIMES))


def test_a_hidden_class_moves_no_vector_and_still_gives_the_table_a_gradient():
    network = awake(UNet(**ADM, num_classes=5)).requires_grad_(True)
    network(images(), TIMES, label=LABELS).square().sum().backward()
    moved = network.label.weight.grad.abs().amax(1) > 0
    assert moved.tolist() == [True, False, False, False, True]  # those of LABELS
    for label in (None, torch.full((3,), -1)):
        network.zero_grad()
        network(images(), TIMES, label=label).square().sum().backward()
        assert network.label.weight.grad.abs().max() == 0  # there, since DDP waits for it


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 5, 1]), r"label must be a class in 0\.\.4, or -1 for none, got 5"),
        (torch.tensor([0, 1, -2]), r"label must be a class in 0\.\.4, or -1 for none, got -2"),
        (torch.tensor([0, 1]), r"label must be integers, one for each of 3 images, got 'torch.int64 \[2\]'"),
        (torch.tensor([0.0, 1.0, 2.0]), r"label must be integers, .* got 'torch.float32 \[3\]'"),
    ],
)
def test_labels_that_cannot_be_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        UNet(**ADM, num_classes=5)(images(), TIMES, label=label)


# Heads, and blocks in place of convolutions


def test_heads_of_some_channels_are_more_heads_where_a_level_is_wider():
    network = UNet(**ADM, attention_levels=[0, 1])
    heads = {m.norm.num_channels: m.num_heads for m in network.modules() if isinstance(m, Attention)}
    assert heads == {8: 2, 16: 4}
    by_number = awake(UNet(**ADM | {"head_channels": None, "num_heads": 4}))
    by_channels = awake(UNet(**ADM))  # attention in the middle alone, 16 channels wide
    assert by_number(images(), TIMES).equal(by_channels(images(), TIMES))


def test_a_block_that_resamples_starts_as_pooling_or_as_pixels_written_four_times():
    x, emb = images(channels=8), drawn(3, 16)
    sizes = {"emb_channels": 16, "dropout": 0.0, "num_groups": 4}
    halved = ResBlock(8, 8, **sizes, resize=nn.AvgPool2d(2)).double()(x, emb)
    assert_same(halved, x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5)))
    doubled = ResBlock(8, 8, **sizes, resize=nn.Upsample(scale_factor=2)).double()(x, emb)
    assert doubled.equal(x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3))


# Small images


def doubled(x, dim):
    """Twice as long: each new pixel a quarter of the way to a neighbour, at the ends its own."""
    before, after = (x.roll(by, dim) for by in (1, -1))
    before.narrow(dim, 0, 1).copy_(x.narrow(dim, 0, 1))
    after.narrow(dim, -1, 1).copy_(x.narrow(dim, -1, 1))
    return torch.stack([0.75 * x + 0.25 * before, 0.75 * x + 0.25 * after], dim + 1).flatten(dim, dim + 1)


def test_a_small_image_is_enlarged_bilinearly():
    network, concat = awake(UNet(**ADM, concat_channels=True)), images(seed=3, size=(4, 8))
    found = network(images(), TIMES, concat=concat)
    assert_same(found, network(images(), TIMES, concat=doubled(doubled(concat, 2), 3)))


@pytest.mark.parametrize("patch_size", [1, 2])
def test_a_small_image_goes_in_behind_the_image_and_the_guess_which_is_zeros_where_there_is_none(patch_size):
    network = awake(UNet(**ADM, patch_size=patch_size, self_condition=True, concat_channels=True))
    plain = UNet(**ADM | {"in_channels": 6, "out_channels": 2, "patch_size": patch_size})
    plain.double().load_state_dict(network.state_dict())
    guess, concat = images(seed=2), images(seed=3)  # as large as the image: nothing to resize
    for given, expected in ((guess, guess), (None, torch.zeros_like(guess))):
        beside = plain(torch.cat([images(), expected, concat], 1), TIMES)
        assert_same(network(images(), TIMES, x0_guess=given, concat=concat), beside)


# Tokens


def test_tokens_are_attended_to_behind_every_attention_and_say_nothing_at_the_start():
    network = UNet(**ADM | {"attention_levels": [1], "token_channels": 6})
    found = [name.removesuffix(".cross") for name, m in network.named_modules() if isinstance(m, CrossAttention)]
    assert found == [n.removesuffix(".attention") for n, m in network.named_modules() if isinstance(m, Attention)]
    cross = CrossAttention(8, 6, 2, 4).double()
    assert cross(images(8), drawn(3, 7, 6)).equal(images(8))


def test_the_order_of_tokens_does_not_matter_and_their_values_do():
    network, tokens = awake(UNet(**ADM, token_channels=6)), drawn(3, 7, 6, seed=4)
    found = network(images(), TIMES, tokens=tokens)
    assert_same(network(images(), TIMES, tokens=tokens.flip(1)), found)
    assert_same(network(images(), TIMES, tokens=tokens.repeat(1, 2, 1)), found)  # any number of them
    assert not torch.allclose(network(images(), TIMES, tokens=drawn(3, 7, 6, seed=5)), found, atol=1e-3)


# What it is told, all of it


@pytest.mark.parametrize("name", ["concat", "tokens"])
def test_what_a_network_cannot_do_without_is_asked_for(name):
    with pytest.raises(ValueError, match=f"^this U-Net needs the condition {name}, which is missing$"):
        UNet(**ALL)(images(), TIMES, **{other: tensor for other, tensor in told().items() if other != name})


@pytest.mark.parametrize("name", ["x0_guess", "label", "concat", "tokens"])
def test_what_a_network_does_not_take_is_refused(name):
    with pytest.raises(ValueError, match=f"^this U-Net takes no conditions, got {name}$"):
        UNet(**ADM)(images(), TIMES, **{name: told()[name]})
    with pytest.raises(ValueError, match=r"takes no conditions but x0_guess, label, concat, tokens, got words$"):
        UNet(**ALL)(images(), TIMES, **told(), words=LABELS)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("concat", (3, 2, 16, 8), r"concat must be images of the shape \[3, 2, 8, 16\] or smaller"),
        ("concat", (3, 1, 4, 8), r"concat must be images of the shape"),
        ("concat", (1, 2, 4, 8), r"concat must be images of the shape"),
        ("concat", (3, 2, 4), r"concat must be images of the shape"),
        ("tokens", (3, 7, 5), r"tokens must be of the shape \[3, N, 6\], got \[3, 7, 5\]"),
        ("tokens", (3, 6), r"tokens must be of the shape"),
        ("tokens", (2, 7, 6), r"tokens must be of the shape"),
        ("tokens", (3, 0, 6), r"tokens must be of the shape"),
    ],
)
def test_what_has_another_shape_is_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        UNet(**ALL)(images(), TIMES, **told() | {name: torch.zeros(shape)})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"token_channels": 1.5}, "token_channels must be a positive integer, got 1.5"),
        ({"concat_channels": "yes"}, "concat_channels must be a positive integer, got 'yes'"),
        ({"resample": "blocks"}, "resample must be one of conv, block, got 'blocks'; did you mean 'block'"),
        ({"convention": "edm"}, "convention must be one of ddpm, adm, got 'edm'"),
        ({"head_channels": 0}, "head_channels must be a positive integer, got 0"),
        ({"head_channels": 5}, "head_channels must be a divisor of 16, the width of a level with attention, got 5"),
        ({"num_heads": 2}, "num_heads must be 1 with head_channels, .* got 2"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        UNet(**ADM | changes)


@pytest.mark.parametrize("name", ["concat_channels", "token_channels", "resample"])
def test_what_diffusers_lacks_is_refused_by_name_and_not_left_out(name):
    network = UNet(**SMALL | {name: ALL[name]})
    with pytest.raises(ValueError, match=f"^{name} must be .* to save for diffusers, got "):
        diffusers.config_from(network.settings)
