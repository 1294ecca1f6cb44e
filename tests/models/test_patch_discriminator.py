"""The discriminator of patches: the published sizes and initial values, patches that know nothing of each other."""

import pytest
import torch
from networks import built, num_parameters
from precision import assert_same
from torch import nn

from ddpm.networks.patch_discriminator import PatchDiscriminator

SMALL = {"in_channels": 2, "base_channels": 8, "num_layers": 2, "num_groups": 4}


@pytest.mark.parametrize("norm", ["group", "batch"])
@pytest.mark.parametrize(("num_layers", "published", "side"), [(3, 2_765_633, 30), (2, 663_361, 62)])
def test_the_published_discriminators_have_their_sizes(config, num_layers, published, side, norm):
    words = ("adversary=patch", f"adversary.num_layers={num_layers}", f"adversary.norm={norm}", "data.channels=3")
    network = built(config("train", *words).adversary)
    assert num_parameters(network) == published
    assert network(torch.empty(1, 3, 256, 256, device="meta")).shape == (1, 1, side, side)


def test_the_initial_weights_are_the_published_ones():
    """Over 147,000 weights: their deviation within four standard errors, 4 / sqrt(2 n) of it."""
    torch.manual_seed(0)
    network = PatchDiscriminator(2, 64, 2, "batch", 8)
    weights = torch.cat([layer.weight.flatten() for layer in network.modules() if isinstance(layer, nn.Conv2d)])
    assert weights.std().item() == pytest.approx(0.02, rel=4 / (2 * len(weights)) ** 0.5)
    assert not any(layer.bias.any() for layer in network.modules() if getattr(layer, "bias", None) is not None)
    norms = torch.cat([layer.weight for layer in network.modules() if isinstance(layer, nn.SyncBatchNorm)])
    assert abs(norms.mean() - 1) < 4 * 0.02 / len(norms) ** 0.5


def test_a_logit_is_of_its_patch_alone_without_norms_and_of_its_image_alone_with_group_norm():
    network = PatchDiscriminator(**SMALL, norm="group").double()
    x = torch.randn(3, 2, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    assert_same(network(x)[1:2], network(x[1:2]))
    for block in network.blocks:
        block[1] = nn.Identity()
    changed = x.clone()
    changed[..., 0, 0] += 1
    differs = (network(changed) - network(x))[0, 0] != 0
    assert differs[0, 0]
    assert not differs[3:, :].any()
    assert not differs[:, 3:].any()


@pytest.mark.parametrize(
    ("change", "message"),
    [({"norm": "layer"}, "norm must be one of group, batch"), ({"num_groups": 3}, "base_channels must be a multiple")],
)
def test_bad_settings_are_named(change, message):
    with pytest.raises(ValueError, match=message):
        PatchDiscriminator(**SMALL | {"norm": "group"} | change)
