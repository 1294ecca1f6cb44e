"""The classifier of noisy images: published sizes, its parts against other programs, and what it refuses."""

import pytest
import torch
import torch.nn.functional as F
from diffusers import UNet2DModel
from networks import awake
from precision import assert_same
from torch import nn

from ddpm.interop.diffusers_names import to_theirs
from ddpm.networks.attention import AttentionPool
from ddpm.networks.classifier import Classifier

SMALL = {
    **{"in_channels": 2, "size": [8, 16], "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1},
    **{"num_groups": 4, "num_classes": 5, "head_channels": 4},
    **{"scale_shift": True, "resample": "block", "convention": "adm"},
}
TIMES = torch.tensor([0, 17, 999])


def images(channels=2, seed=1, size=(8, 16)):
    return torch.randn(3, channels, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Against other programs


def by_torch(pool, x):
    """The pooling by torch's own attention, of which the mean is the one query."""
    channels = x.shape[1]
    attention = nn.MultiheadAttention(channels, pool.num_heads, batch_first=True, dtype=x.dtype)
    attention.load_state_dict(
        {
            "in_proj_weight": pool.qkv.weight.flatten(1),
            "in_proj_bias": pool.qkv.bias,
            "out_proj.weight": pool.out.weight.new_tensor(torch.eye(channels).tolist()),
            "out_proj.bias": torch.zeros(channels),
        }
    )
    pixels = x.flatten(2).mT
    tokens = torch.cat([pixels.mean(1, keepdim=True), pixels], 1) + pool.places.T
    answer, _ = attention(tokens[:, :1], tokens, tokens)
    return F.linear(answer[:, 0], pool.out.weight.flatten(1), pool.out.bias)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_the_pooling_is_attention_of_the_mean_to_all_pixels(num_heads):
    pool = awake(AttentionPool(8, 5, num_heads, num_pixels=12))
    x = images(8, size=(3, 4))
    assert_same(pool(x), by_torch(pool, x))


@pytest.mark.parametrize("attended", [[], [0, 1]], ids=["attention in the middle", "attention everywhere"])
def test_the_way_down_is_that_of_diffusers(attended):
    ours = awake(Classifier(**SMALL | {"attention_levels": attended}))
    kinds = ["Attn{}Block2D" if level in attended else "Resnet{}sampleBlock2D" for level in range(2)]
    theirs = UNet2DModel(
        in_channels=2,
        out_channels=2,
        block_out_channels=[8, 16],
        layers_per_block=1,
        down_block_types=[each.format("Down") for each in kinds],
        up_block_types=[each.format("Up") for each in reversed(kinds)],
        downsample_type="resnet",
        upsample_type="resnet",
        attention_head_dim=4,
        norm_num_groups=4,
        attn_norm_num_groups=4,
        norm_eps=1e-5,
        flip_sin_to_cos=True,
        freq_shift=0,
        resnet_time_scale_shift="scale_shift",
    )
    own = {key: w for key, w in ours.state_dict().items() if not key.startswith(("pool.", "norm."))}
    found = theirs.double().load_state_dict(to_theirs(own), strict=False)
    assert not found.unexpected_keys
    assert {key.split(".")[0] for key in found.missing_keys} == {"up_blocks", "conv_norm_out", "conv_out"}

    emb, h = theirs.time_embedding(theirs.time_proj(TIMES).double()), theirs.conv_in(images())
    for level in theirs.down_blocks:
        h, _ = level(h, emb)
    h = F.group_norm(theirs.mid_block(h, emb), 4, ours.norm.weight, ours.norm.bias, eps=1e-5)
    expected = by_torch(ours.pool, F.silu(h))
    assert_same(ours(images(), TIMES), expected)


# What it sees


def test_without_places_the_pooling_sees_no_order_of_pixels_and_with_them_it_does():
    pool, x = awake(AttentionPool(8, 5, 2, num_pixels=12)), images(8, size=(3, 4))
    assert not torch.allclose(pool(x.flip(3)), pool(x), atol=1e-3)
    pool.places.zero_()
    assert_same(pool(x.flip(3)), pool(x))


def test_times_of_4000_are_seen_as_quarters_of_those_of_1000():
    of_4000, as_they_are = (awake(Classifier(**SMALL, num_timesteps=number)) for number in (4000, None))
    assert of_4000(images(), 4 * TIMES).equal(as_they_are(images(), TIMES))


def test_the_gradient_of_an_image_is_that_of_its_own_logits():
    network = awake(Classifier(**SMALL))
    x = images().requires_grad_(True)
    (gradient,) = torch.autograd.grad(network(x, TIMES)[1, 3], x)
    assert gradient[[0, 2]].abs().max() == 0
    direction = images(seed=2)
    with torch.no_grad():
        ahead, behind = (network(x + step * direction, TIMES)[1, 3] for step in (1e-5, -1e-5))
    assert (gradient * direction).sum().item() == pytest.approx((ahead - behind).item() / 2e-5, rel=1e-6)


def test_its_start_says_little_and_depends_on_the_seed_alone():
    networks = []
    for _ in range(2):
        torch.manual_seed(3)
        networks.append(Classifier(**SMALL).double())
    logits = [network(images(), TIMES) for network in networks]
    assert logits[0].equal(logits[1])
    assert logits[0].softmax(1).max() < 0.99


# What it refuses


def test_conditions_and_other_images_are_refused():
    network = Classifier(**SMALL)
    with pytest.raises(ValueError, match="this classifier takes no conditions, got label, low_res"):
        network(images(), TIMES, low_res=images(), label=TIMES)
    with pytest.raises(ValueError, match=r"takes images of 2 x 8 x 16 \(in_channels, size\), got 2 x 16 x 16"):
        network(images(size=(16, 16)), TIMES)
    with pytest.raises(ValueError, match=r"takes images of 2 x 8 x 16 \(in_channels, size\), got 3 x 8 x 16"):
        network(images(3), TIMES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_classes": None}, "num_classes must be the number of classes, which cond=class sets, got None"),
        ({"num_classes": 2.0}, "num_classes must be a positive integer, got 2.0"),
        ({"size": "8"}, "size must be one length or .height, width., got '8'"),
        ({"size": [8, 0]}, r"size\[1\] must be a positive integer, got 0"),
        ({"size": [8, 8, 8]}, "size must be one length or"),
        ({"size": 9}, "image size 9 x 9 is not divisible by 2 = patch_size"),
        ({"head_channels": 3}, "head_channels must be a divisor of 16"),
        ({"num_heads": 2}, "num_heads must be 1 with head_channels"),
        ({"channel_mults": []}, "channel_mults must be a list of one integer per level"),
        ({"base_channels": 10}, "base_channels must be even, at least 4 and a multiple of num_groups = 4"),
        ({"scale_shift": 1}, "scale_shift must be true or false"),
        ({"convention": "ADM"}, "convention must be one of ddpm, adm"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        Classifier(**SMALL | changes)
