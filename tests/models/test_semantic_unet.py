"""The U-Net of label maps, against the maps, halvings and convolution of the paper written out."""

import pytest
import torch
import torch.nn.functional as F
from networks import awake
from precision import assert_same

from ddpm.networks import UNet
from ddpm.networks.semantic_unet import SemanticUNet

SMALL = {"in_channels": 2, "base_channels": 8, "channel_mults": [1, 2], "num_res_blocks": 1, "num_groups": 4}
TIMES = torch.tensor([3, 500])
X = torch.randn(2, 2, 4, 6, generator=torch.Generator().manual_seed(1)).double()
LABELS = torch.randint(0, 5, (2, 16, 24), generator=torch.Generator().manual_seed(2))


def network(**changes):
    return awake(SemanticUNet(**SMALL | {"label_channels": 3, "num_labels": 5} | changes))


@pytest.mark.parametrize("num_halvings", [0, 1, 2])
def test_it_equals_one_map_a_label_halved_bilinearly_and_mapped_by_a_convolution(num_halvings):
    semantic, labels = network(), LABELS[:, : 4 * 2**num_halvings, : 6 * 2**num_halvings]
    maps = F.one_hot(labels, 5).permute(0, 3, 1, 2).double()
    for _ in range(num_halvings):
        maps = F.interpolate(maps, scale_factor=0.5, mode="bilinear")
    expected = semantic.unet(X, TIMES, concat=F.conv2d(maps, semantic.labels.weight))
    assert_same(semantic(X, TIMES, label_map=labels), expected)


def test_two_halvings_are_the_mean_of_sixteen_pixels():
    found = network().image_of(LABELS, 4)
    column = network().labels.weight[:, :, 0, 0]
    block = column[:, LABELS[1, 4:8, 8:12].flatten()].mean(1)
    assert_same(found[1, :, 1, 2], block)


def test_no_label_is_zeros():
    found = network().image_of(torch.full((2, 8, 8), -1), 2)
    assert found.equal(torch.zeros(2, 3, 4, 4).double())


def test_the_convolution_has_no_bias_and_learns():
    semantic = network().requires_grad_()
    plain = UNet(**SMALL, concat_channels=3)
    extra = sum(p.numel() for p in semantic.parameters()) - sum(p.numel() for p in plain.parameters())
    assert extra == 5 * 3
    semantic(X, TIMES, label_map=LABELS).square().sum().backward()
    assert (semantic.labels.weight.grad != 0).all()


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((2, 16, 16), r"label_map must be of the shape \[2, 'f 4', 'f 6'\] for a whole number f, got \[2, 16, 16\]"),
        ((1, 4, 6), "label_map must be of the shape"),
        ((2, 3, 4, 6), "label_map must be of the shape"),
        ((2, 2, 3), "label_map must be of the shape"),
    ],
)
def test_labels_of_another_shape_are_refused(shape, message):
    with pytest.raises(ValueError, match=message):
        network()(X, TIMES, label_map=torch.zeros(shape, dtype=torch.int64))


def test_labels_are_asked_for_and_so_is_their_number():
    with pytest.raises(ValueError, match="needs the condition label_map, which is missing"):
        network()(X, TIMES)
    with pytest.raises(ValueError, match="num_labels must be an integer; cond=semantic sets it, got None"):
        network(num_labels=None)
