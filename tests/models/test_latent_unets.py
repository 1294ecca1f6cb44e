"""The U-Nets of latent diffusion: their options against diffusers' U-Nets, spatial transformers, classes as tokens."""

import pytest
import torch
from diffusers import UNet2DConditionModel, UNet2DModel
from diffusers.models.attention_processor import Attention as TheirAttention
from networks import awake, built
from precision import assert_same
from torch import nn

from ddpm.interop import diffusers
from ddpm.interop.diffusers_names import to_theirs
from ddpm.networks import UNet
from ddpm.networks.class_token_unet import ClassTokenUNet
from ddpm.networks.transformer import MultiHeadAttention, SpatialTransformer

SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
LATENT = {**SMALL, "attention_levels": [0], "head_channels": 4, "transformer_depth": 2, "convention": "adm"}
CLASSES = {**LATENT, "token_channels": 6, "num_classes": 5}
TIMES, LABELS = torch.tensor([0, 17, 999]), torch.tensor([4, 0, -1])


def drawn(*shape, seed=1):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).double()


X, TOKENS = drawn(3, 2, 8, 16), drawn(3, 7, 6, seed=2)


# Against another program


def their_arguments(settings, kind="Attn"):
    """The arguments of diffusers' U-Nets for the settings of our `UNet`. kind: prefix of blocks with attention."""
    resample = {"conv": "conv", "block": "resnet"}[settings["resample"]]
    plain = {"conv": "{}Block2D", "resnet": "Resnet{}sampleBlock2D"}[resample]
    levels = range(len(settings["channel_mults"]))
    kinds = [f"{kind}{{}}Block2D" if level in settings["attention_levels"] else plain for level in levels]
    return {
        "in_channels": settings["in_channels"],
        "out_channels": settings["out_channels"],
        "block_out_channels": [settings["base_channels"] * mult for mult in settings["channel_mults"]],
        "layers_per_block": settings["num_res_blocks"],
        "down_block_types": [each.format("Down") for each in kinds],
        "up_block_types": [each.format("Up") for each in reversed(kinds)],
        "norm_num_groups": settings["num_groups"],
        "norm_eps": 1e-5,
        "flip_sin_to_cos": True,
        "freq_shift": 0,
        "downsample_padding": 1,
        "resnet_time_scale_shift": "scale_shift" if settings["scale_shift"] else "default",
        **({"downsample_type": resample, "upsample_type": resample} if resample == "resnet" else {}),
    }


@pytest.mark.parametrize(("name", "head_channels"), [("ldm_celebahq", 32), ("ldm_church", 16)])
def test_the_networks_without_conditions_are_those_of_diffusers(config, name, head_channels):
    """At a base width of 32. diffusers has channels per head only, so the 8 heads of ldm_church are set afterwards."""
    ours = awake(built(config("train", f"model={name}").model, device="cpu", base_channels=32))
    shape = {"attention_head_dim": head_channels, "attn_norm_num_groups": 32}
    theirs = UNet2DModel(**their_arguments(ours.settings), **shape).double()
    if name == "ldm_church":
        for module in theirs.modules():
            if isinstance(module, TheirAttention):
                module.heads = 8
    theirs.load_state_dict(to_theirs(ours.state_dict()))
    x = drawn(3, ours.in_channels, 16, 32)
    assert_same(ours(x, TIMES), theirs(x, TIMES).sample)


@pytest.mark.parametrize(("name", "num_heads"), [("ldm_cin256", (1, 2, 4)), ("ldm_cin256_v2", 1)])
def test_the_networks_of_classes_are_those_of_diffusers_with_one_token(config, name, num_heads):
    """At a base width of 32. diffusers' attention_head_dim is a number of heads here, whatever its name says."""
    changes = {"base_channels": 32, "token_channels": 24, "num_classes": 5}
    ours = awake(built(config("train", f"model={name}").model, device="cpu", **changes))
    arguments = their_arguments(ours.unet.settings, "CrossAttn")
    theirs = UNet2DConditionModel(**arguments, attention_head_dim=num_heads, cross_attention_dim=24).double()
    theirs.load_state_dict(to_theirs(ours.unet.state_dict()))
    x = drawn(3, ours.in_channels, 16, 8)
    table = ours.classes.weight
    none = table[5] if ours.null_embedding else torch.zeros(24).double()
    tokens = torch.stack([table[4], table[0], none])[:, None]
    assert_same(ours(x, TIMES, label=LABELS), theirs(x, TIMES, encoder_hidden_states=tokens).sample)


@pytest.mark.parametrize("depth", [1, 3])
def test_a_network_with_several_layers_and_tokens_is_that_of_diffusers(depth):
    settings = LATENT | {"head_channels": None, "num_heads": 2, "transformer_depth": depth, "token_channels": 6}
    ours = awake(UNet(**settings))
    shape = {"attention_head_dim": 2, "cross_attention_dim": 6, "transformer_layers_per_block": depth}
    theirs = UNet2DConditionModel(**their_arguments(ours.settings, "CrossAttn"), **shape).double()
    theirs.load_state_dict(to_theirs(ours.state_dict()))
    expected = theirs(X, TIMES, encoder_hidden_states=TOKENS).sample
    assert_same(ours(X, TIMES, tokens=TOKENS), expected)


@pytest.mark.parametrize(
    ("name", "size", "sides", "heads"),
    [
        ("ldm_cin256", 32, [32, 16, 8], lambda width: width // 32),
        ("ldm_cin256_v2", 64, [32, 16, 8], lambda width: 1),
    ],
)
def test_the_published_transformers_have_their_heads_and_sides(config, name, size, sides, heads):
    network, found = built(config("train", f"model={name}").model, num_classes=1000).unet, []
    for key, module in network.named_modules():
        if isinstance(module, SpatialTransformer):
            assert [layer.attention.num_heads for layer in module.layers] == [heads(module.norm.num_channels)]
            way, number = key.split(".")[:2]
            finest = {"down": int(number), "up": len(network.up) - 1 - int(number), "middle": len(network.down) - 1}
            found.append((way, size >> finest[way]))
    expected = [(way, side) for way, num in (("down", 2), ("up", 3)) for side in sides for _ in range(num)]
    assert sorted(found) == sorted([*expected, ("middle", sides[-1])])
    assert network.token_channels == 512


# Spatial transformers


def test_a_spatial_transformer_starts_as_the_identity():
    transformer = SpatialTransformer(8, num_heads=2, num_groups=4, depth=2, token_channels=6).double()
    x = drawn(3, 8, 4, 4)
    assert transformer(x, TOKENS).equal(x)


def test_the_pixels_are_a_set_and_so_are_the_tokens():
    transformer = awake(SpatialTransformer(8, num_heads=2, num_groups=4, depth=2, token_channels=6))
    x, order = drawn(3, 8, 4, 6), torch.randperm(24, generator=torch.Generator().manual_seed(0))
    found = transformer(x, TOKENS)
    shuffled = transformer(x.flatten(2)[:, :, order].view(x.shape), TOKENS.flip(1))
    assert_same(shuffled, found.flatten(2)[:, :, order].view(x.shape))


def test_without_tokens_there_is_no_cross_attention():
    network = awake(UNet(**LATENT))
    assert not any("cross" in key for key in network.state_dict())
    assert torch.isfinite(network(X, TIMES)).all()
    with pytest.raises(ValueError, match="takes no conditions, got tokens"):
        network(X, TIMES, tokens=TOKENS)


def test_the_norm_of_a_transformer_has_its_own_small_number():
    norms = {name: m.eps for name, m in UNet(**LATENT).named_modules() if isinstance(m, nn.GroupNorm)}
    assert {eps for name, eps in norms.items() if "transformer" in name} == {1e-6}
    assert {eps for name, eps in norms.items() if "transformer" not in name} == {1e-5}


@pytest.mark.parametrize("depth", [0, 1.5, "two"])
def test_a_depth_that_cannot_be_is_refused(depth):
    with pytest.raises(ValueError, match=r"^transformer_depth must be a positive integer, got"):
        UNet(**SMALL, transformer_depth=depth)


def test_diffusers_unconditional_network_has_no_transformers():
    with pytest.raises(ValueError, match=r"^transformer_depth must be None to save for diffusers, got 2"):
        diffusers.config_from(UNet(**LATENT | {"head_channels": None, "convention": "ddpm"}).settings)


# Classes as tokens


def classes(**changes):
    return awake(ClassTokenUNet(**CLASSES | changes))


@pytest.mark.parametrize("null_embedding", [False, True])
def test_a_class_is_one_token_and_no_class_is_zeros_or_the_last_row(null_embedding):
    network = classes(null_embedding=null_embedding)
    table = network.classes.weight
    assert table.shape == (5 + null_embedding, 6)
    none = table[5] if null_embedding else torch.zeros(6).double()
    found, tokens = network(X, TIMES, label=LABELS), torch.stack([table[4], table[0], none])[:, None]
    assert_same(found, network.unet(X, TIMES, tokens=tokens))
    assert (found[:2] - network(X, TIMES)[:2]).abs().max() > 1e-3
    assert network(X, TIMES).equal(network(X, TIMES, label=torch.full((3,), -1)))


def test_a_learned_embedding_of_no_class_can_be_absorbed_by_biases_and_rows():
    """With one token, a cross-attention adds out(value(token)); so a shift of all tokens is a shift of its bias."""
    learned, zeros = classes(null_embedding=True), classes()
    zeros.unet.load_state_dict(learned.unet.state_dict())
    table = learned.classes.weight
    zeros.classes.weight.data = table[:5] - table[5]
    crosses = [m for name, m in zeros.named_modules() if name.endswith(".cross")]
    assert len(crosses) == 2 * 4  # two layers in each of down, middle and twice up
    for cross in crosses:
        cross.out.bias += cross.out.weight @ cross.value.weight @ table[5]
    assert_same(zeros(X, TIMES, label=LABELS), learned(X, TIMES, label=LABELS))


@pytest.mark.parametrize("label", [None, LABELS])
@pytest.mark.parametrize("null_embedding", [False, True])
def test_every_weight_has_a_gradient_in_each_step_as_ddp_needs(null_embedding, label):
    network = classes(null_embedding=null_embedding).requires_grad_(True)
    network(X, TIMES, label=label).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None] == []
    given = [-1] if label is None else label.tolist()
    moved = network.classes.weight.grad.abs().amax(1) > 0
    assert moved.tolist() == [row in given or (row == 5 and -1 in given) for row in range(5 + null_embedding)]


def test_attention_to_one_token_does_not_depend_on_queries_and_keys():
    network = classes()
    found = network(X, TIMES, label=LABELS)
    for name, parameter in network.named_parameters():
        if name.endswith(("cross.query.weight", "cross.key.weight")):
            parameter.data.zero_()
    assert_same(network(X, TIMES, label=LABELS), found)


def test_without_classes_it_is_the_plain_network():
    network = classes(num_classes=None)
    assert network.classes is None
    assert network(X, TIMES).equal(network.unet(X, TIMES))
    assert not any(isinstance(m, MultiHeadAttention) for name, m in network.named_modules() if name.endswith("cross"))
    with pytest.raises(ValueError, match="this network knows no classes"):
        network(X, TIMES, label=LABELS)


@pytest.mark.parametrize(
    ("label", "message"),
    [
        (torch.tensor([0, 5, 1]), r"label must be a class in 0\.\.4, or -1 for none, got 5"),
        (torch.tensor([0, 1]), r"label must be integers, one for each of 3 images"),
    ],
)
def test_labels_that_cannot_be_are_refused(label, message):
    with pytest.raises(ValueError, match=message):
        classes(null_embedding=True)(X, TIMES, label=label)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": 0}, "num_classes must be a positive integer, got 0"),
        ({"token_channels": None}, "token_channels must be a positive integer, got None"),
        ({"null_embedding": "yes"}, "null_embedding must be true or false, got 'yes'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        ClassTokenUNet(**CLASSES | changes)


@pytest.mark.parametrize("size", [(7, 7), (16, 16), (8, 12)])
def test_the_tiny_network_takes_small_latents_with_and_without_classes(config, size):
    for changes, told in (({}, {}), ({"num_classes": 10}, {"label": LABELS})):
        network = built(config("train", "model=ldm_tiny").model, device="cpu", in_channels=3, **changes)
        assert network(torch.randn(3, 3, *size), TIMES, **told).shape == (3, 3, *size)
