"""Weights of improved-diffusion and guided-diffusion, against a network that is read off their keys alone."""

import builtins
import json
import math
import os
import pickle
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.commands import sample
from ddpm.config import build, wiring
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.interop import openai
from ddpm.interop.openai_configuration import openai_configuration
from ddpm.interop.openai_flags import PUBLISHED, published_name

# What their files look like: the shape of every tensor, in the order in which their program makes them


class Shapes(dict):
    def conv(self, key, inputs, outputs, *kernel):
        self[f"{key}.weight"], self[f"{key}.bias"] = (outputs, inputs, *kernel), (outputs,)

    def norm(self, key, channels):
        self[f"{key}.weight"] = self[f"{key}.bias"] = (channels,)

    def res(self, key, inputs, outputs, emb, shift):
        self.norm(f"{key}.in_layers.0", inputs)
        self.conv(f"{key}.in_layers.2", inputs, outputs, 3, 3)
        self.conv(f"{key}.emb_layers.1", emb, 2 * outputs if shift else outputs)
        self.norm(f"{key}.out_layers.0", outputs)
        self.conv(f"{key}.out_layers.3", outputs, outputs, 3, 3)
        if inputs != outputs:
            self.conv(f"{key}.skip_connection", inputs, outputs, 1, 1)

    def attention(self, key, channels):
        self.norm(f"{key}.norm", channels)
        self.conv(f"{key}.qkv", channels, 3 * channels, 1)
        self.conv(f"{key}.proj_out", channels, channels, 1)


def shapes(base, mults, blocks, attention, *, time=None, images=3, outputs=6, classes=None, shift=True, block=True,
           side=None):  # fmt: skip
    """attention: levels. side: of a classifier's last feature map; None: a U-Net."""
    time = time or base
    emb, widths, last = 4 * time, [int(base * mult) for mult in mults], len(mults) - 1
    found = Shapes()
    found.conv("time_embed.0", time, emb)
    found.conv("time_embed.2", emb, emb)
    if classes:
        found["label_emb.weight"] = (classes, emb)
    found.conv("input_blocks.0.0", images, widths[0], 3, 3)
    channels, skips, number = widths[0], [widths[0]], 0
    for level, width in enumerate(widths):
        for _ in range(blocks):
            number += 1
            found.res(f"input_blocks.{number}.0", channels, width, emb, shift)
            if level in attention:
                found.attention(f"input_blocks.{number}.1", width)
            channels = width
            skips.append(channels)
        if level < last:
            number += 1
            if block:
                found.res(f"input_blocks.{number}.0", channels, channels, emb, shift)
            else:
                found.conv(f"input_blocks.{number}.0.op", channels, channels, 3, 3)
            skips.append(channels)
    found.res("middle_block.0", channels, channels, emb, shift)
    found.attention("middle_block.1", channels)
    found.res("middle_block.2", channels, channels, emb, shift)
    number = 0
    for level in range(last, -1, -1) if side is None else ():
        for i in range(blocks + 1):
            key = f"output_blocks.{number}"
            found.res(f"{key}.0", channels + skips.pop(), widths[level], emb, shift)
            channels = widths[level]
            if level in attention:
                found.attention(f"{key}.1", channels)
            if level > 0 and i == blocks:
                key += ".2" if level in attention else ".1"
                found.res(key, channels, channels, emb, shift) if block else found.conv(
                    f"{key}.conv", channels, channels, 3, 3
                )
            number += 1
    found.norm("out.0", channels)
    if side is None:
        found.conv("out.2", channels, outputs, 3, 3)
    else:
        found["out.2.positional_embedding"] = (channels, side**2 + 1)
        found.conv("out.2.qkv_proj", channels, 3 * channels, 1)
        found.conv("out.2.c_proj", channels, outputs, 1)
    return found


def filled(shapes, seed=0):
    """Float32 weights of these shapes, all random, so that no part of the network is hidden behind a zero."""
    generator = torch.Generator().manual_seed(seed)
    weights = OrderedDict()
    for key, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        fan_in = math.prod(shape[1:])
        weights[key] = noise / fan_in**0.5 if len(shape) > 1 and "embedding" not in key else noise * 0.1
        if len(shape) == 1 and key.endswith("weight"):
            weights[key] += 1  # of a norm
    weights["input_blocks.0.0.weight"] *= 0.01  # so that the first norm shows the number it adds to the variance
    return weights


# What their programs do with them


def twice(x):
    return F.interpolate(x, scale_factor=2.0)


def half(x):
    return F.avg_pool2d(x, 2)


class Theirs:
    """Reads the layers off the keys as it comes to them, and computes in float64, but for the waves of the time.

    heads: a number, or None where each has `head_channels`.
    """

    def __init__(self, weights, heads=None, head_channels=None, new_order=False):
        self.w = {key: weight.double() for key, weight in weights.items()}
        self.heads, self.head_channels, self.new_order = heads, head_channels, new_order

    def has(self, key):
        return any(name.startswith(f"{key}.") for name in self.w)

    def linear(self, key, x):
        return F.linear(x, self.w[f"{key}.weight"], self.w[f"{key}.bias"])

    def conv(self, key, x, **how):
        weight = self.w[f"{key}.weight"]
        return (F.conv1d if weight.dim() == 3 else F.conv2d)(x, weight, self.w[f"{key}.bias"], **how)

    def norm(self, key, x):
        return F.group_norm(x, 32, self.w[f"{key}.weight"], self.w[f"{key}.bias"], eps=1e-5)

    def emb(self, time, label):
        channels = self.w["time_embed.0.weight"].shape[1]
        rates = torch.exp(-math.log(10000) * torch.arange(channels // 2) / (channels // 2))  # in float32, as theirs
        angles = time.float()[:, None] * rates
        waves = torch.cat([angles.cos(), angles.sin()], 1).double()
        emb = self.linear("time_embed.2", F.silu(self.linear("time_embed.0", waves)))
        return emb if label is None else emb + self.w["label_emb.weight"][label]

    def res(self, key, x, emb, resample=lambda x: x):
        h = self.conv(f"{key}.in_layers.2", resample(F.silu(self.norm(f"{key}.in_layers.0", x))), padding=1)
        told = self.linear(f"{key}.emb_layers.1", F.silu(emb))[:, :, None, None]
        if told.shape[1] == h.shape[1]:
            h = self.norm(f"{key}.out_layers.0", h + told)
        else:
            scale, shift = told.chunk(2, dim=1)
            h = self.norm(f"{key}.out_layers.0", h) * (1 + scale) + shift
        h = self.conv(f"{key}.out_layers.3", F.silu(h), padding=1)
        x = resample(x)
        return h + (self.conv(f"{key}.skip_connection", x) if self.has(f"{key}.skip_connection") else x)

    def attend(self, qkv, new_order):
        """qkv: `[B, 3C, N]`. One head after the other, each by a matrix of its own."""
        width = qkv.shape[1] // 3
        heads = self.heads or width // self.head_channels
        size, out = width // heads, []
        for head in range(heads):
            if new_order:
                q, k, v = (qkv[:, kind * width + head * size :][:, :size] for kind in range(3))
            else:
                q, k, v = (qkv[:, (3 * head + kind) * size :][:, :size] for kind in range(3))
            out.append(v @ (q.transpose(1, 2) @ k / size**0.5).softmax(-1).transpose(1, 2))
        return torch.cat(out, 1)

    def attention(self, key, x):
        flat = x.flatten(2)
        mixed = self.attend(self.conv(f"{key}.qkv", self.norm(f"{key}.norm", flat)), self.new_order)
        return (flat + self.conv(f"{key}.proj_out", mixed)).view(x.shape)

    def layers(self, block, h, emb, resample):
        """All of a block; `resample` is what its residual block does if the next one is of another resolution."""
        number = 0
        while self.has(key := f"{block}.{number}"):
            if self.has(f"{key}.qkv"):
                h = self.attention(key, h)
            elif self.has(f"{key}.op"):
                h = self.conv(f"{key}.op", h, stride=2, padding=1)
            elif self.has(f"{key}.conv"):
                h = self.conv(f"{key}.conv", twice(h), padding=1)
            elif self.has(f"{key}.in_layers"):
                is_last = not self.has(f"{block}.{number + 1}") and (number or block.startswith("input"))
                h = self.res(key, h, emb, resample) if resample and is_last else self.res(key, h, emb)
            else:
                h = self.conv(key, h, padding=1)
            number += 1
        return h

    def encode(self, x, emb, blocks):
        """blocks: residual blocks a level. The feature maps, finest first; the last is the middle's."""
        total, h, kept = self.count("input_blocks"), x, []
        for n in range(total):
            down = n > 0 and n % (blocks + 1) == 0
            h = self.layers(f"input_blocks.{n}", h, emb, half if down else None)
            kept.append(h)
        return [*kept, self.layers("middle_block", h, emb, None)]

    def count(self, name):
        return 1 + max(int(key.split(".")[1]) for key in self.w if key.startswith(name))

    def image(self, x, time, label=None, concat=None, *, blocks):
        emb = self.emb(time, label)
        if concat is not None:
            x = torch.cat([x, F.interpolate(concat, x.shape[2:], mode="bilinear")], 1)
        *kept, h = self.encode(x, emb, blocks)
        for n in range(self.count("output_blocks")):
            up = (n + 1) % (blocks + 1) == 0 and n + 1 < self.count("output_blocks")
            h = torch.cat([h, kept.pop()], 1)
            h = self.layers(f"output_blocks.{n}", h, emb, twice if up else None)
        assert not kept
        return self.conv("out.2", F.silu(self.norm("out.0", h)), padding=1)

    def logits(self, x, time, *, blocks):
        h = F.silu(self.norm("out.0", self.encode(x, self.emb(time, None), blocks)[-1])).flatten(2)
        h = torch.cat([h.mean(2, keepdim=True), h], 2) + self.w["out.2.positional_embedding"]
        mixed = self.attend(self.conv("out.2.qkv_proj", h), new_order=True)  # the pooling has no older order
        return self.conv("out.2.c_proj", mixed)[:, :, 0]


# Their files, ours to load

FLAGS = {
    **{"image_size": 16, "diffusion_steps": 1000, "noise_schedule": "linear", "rescale_timesteps": False},
    **{"use_new_attention_order": False, "num_heads": 4},
}
SMALL = {"base": 32, "mults": (1, 2), "blocks": 2, "attention": (1,)}


@pytest.fixture
def file(tmp_path):
    """`file(weights, **flags)`: a path with weights, and flags beside it."""

    def written(weights, **flags):
        torch.save(weights, tmp_path / "model.pt")
        if flags:
            (tmp_path / "model.json").write_text(json.dumps(flags))
        return tmp_path / "model.pt"

    return written


def network_of(path):
    """In eval mode and float64."""
    loaded = openai.load_openai(path)
    network = loaded.builder(**loaded.settings)
    network.load_state_dict(loaded.weights)
    return network.eval().double()


def images(channels=3, size=16, seed=1):
    return torch.randn(3, channels, size, size, generator=torch.Generator().manual_seed(seed)).double()


TIMES = torch.tensor([0, 17, 999])

KINDS = {
    "as guided-diffusion": {},
    "without classes": {"classes": None},
    "attention at every level, three of them": {"mults": (1, 1, 2), "attention": (0, 1, 2), "blocks": 1},
    "no attention but in the middle": {"attention": ()},
    "strided convolutions": {"block": False},
    "strided convolutions, attention at the first of two levels": {"block": False, "attention": (0,)},
    "no scale and shift, one head": {"shift": False, "block": False, "heads": {"num_heads": 1}},
    "no scale and shift in blocks that resample": {"shift": False},
    "one level": {"mults": (1,), "attention": (0,)},
    "no learned variance, one channel": {"images": 1, "outputs": 1},
    "the new order of attention": {"new_order": True},
    "heads of a number of channels": {"heads": {"num_head_channels": 8}},
    "heads of a number of channels, new order": {"heads": {"num_head_channels": 8}, "new_order": True},
    "upsampler": {"images": 6, "low_res": True},
    "times of 4000 steps": {"steps": 4000},
    "waves of the time that are wider than the first level, as for 512 x 512": {"time": 64},
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_network_gives_the_images_of_theirs(kind, file):
    how = {"classes": 10, "heads": {"num_heads": 4}, "new_order": False, "steps": 1000, "low_res": False, **KINDS[kind]}
    heads, new_order, steps, low_res = (how.pop(name) for name in ("heads", "new_order", "steps", "low_res"))
    weights = filled(shapes(**SMALL | how))
    theirs = Theirs(weights, heads.get("num_heads"), heads.get("num_head_channels"), new_order)
    flags = {name: value for name, value in FLAGS.items() if name != "num_heads"} | heads
    flags |= {"small_size": 8} if low_res else {}
    flags |= {"use_new_attention_order": new_order, "diffusion_steps": steps, "rescale_timesteps": steps != 1000}
    network = network_of(file(weights, **flags))

    x, cond = images(3 if low_res else how.get("images", 3)), {}
    if how["classes"]:
        cond["label"] = torch.tensor([3, 0, 9])
    if low_res:
        cond["concat"] = images(size=8, seed=2)
    with torch.no_grad():
        expected = theirs.image(x, TIMES, **cond, blocks=(SMALL | how)["blocks"])
        found = network(x, TIMES * (steps // 1000), **cond)
    assert_same(found, expected)


CLASSIFIERS = {
    "as guided-diffusion": {},
    "attention at both levels": {"attention": (0, 1)},
    "strided convolutions": {"block": False},
    "three levels": {"mults": (1, 2, 2), "attention": (1, 2), "side": 4, "blocks": 1},
    "the new order of attention": {"new_order": True},
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_loaded_classifier_gives_the_logits_of_theirs(kind, file):
    how = {**SMALL, "side": 8, "outputs": 10, "new_order": False, **CLASSIFIERS[kind]}
    new_order = how.pop("new_order")
    weights = filled(shapes(**how))
    heads = {"num_heads": None, "num_head_channels": 16}
    network = network_of(file(weights, **FLAGS | heads | {"use_new_attention_order": new_order}))
    with torch.no_grad():
        expected = Theirs(weights, **{"head_channels": 16, "new_order": new_order}).logits(
            images(), TIMES, blocks=how["blocks"]
        )
        found = network(images(), TIMES)
    assert found.shape == (3, 10)
    assert_same(found, expected)


def test_rows_sorted_by_head_are_sorted_by_query_key_and_value():
    legacy = [f"{kind}{head}{channel}" for head in "01" for kind in "qkv" for channel in "ab"]
    ours = [f"{kind}{head}{channel}" for kind in "qkv" for head in "01" for channel in "ab"]
    rows = openai.rows_by_kind(torch.arange(12.0)[:, None], num_heads=2)
    assert [legacy[int(row)] for row in rows] == ours


def test_a_file_of_half_precision_is_loaded_in_single(file):
    weights = {key: weight.half() for key, weight in filled(shapes(**SMALL)).items()}
    loaded = openai.load_openai(file(weights, **FLAGS))
    assert {weight.dtype for weight in loaded.weights.values()} == {torch.float32}
    assert loaded.weights["stem.weight"].equal(weights["input_blocks.0.0.weight"].float())


# The published files

FILES = {
    "cifar10_uncond_50M_500K": ((128, (1, 2, 2, 2), 3, (1, 2)), {"block": False}, 52_546_438),
    "imagenet64_uncond_100M_1500K": ((128, (1, 2, 3, 4), 3, (2, 3)), {"block": False}, 121_063_942),
    "imagenet64_cond_270M_250K": (
        (192, (1, 2, 3, 4), 3, (2, 3)), {"block": False, "classes": 1000}, 273_049_350,
    ),
    "lsun_uncond_100M_2400K_bs64": (
        (128, (1, 1, 2, 2, 4, 4), 2, (4,)), {"block": False, "shift": False}, 113_676_678,
    ),
    "upsample_cond_500K": (
        (192, (1, 1, 2, 2, 4, 4), 2, (4, 5)), {"block": False, "classes": 1000, "images": 6}, None,
    ),
    "64x64_diffusion": ((192, (1, 2, 3, 4), 3, (1, 2, 3)), {"classes": 1000}, 295_904_454),
    "128x128_diffusion": ((256, (1, 1, 2, 3, 4), 2, (2, 3, 4)), {"classes": 1000}, 421_529_606),
    "256x256_diffusion": ((256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)), {"classes": 1000}, 553_838_086),
    "256x256_diffusion_uncond": ((256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)), {}, 552_814_086),
    "64_256_upsampler": ((192, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)), {"classes": 1000, "images": 6}, None),
    "128_512_upsampler": ((192, (1, 1, 2, 2, 4, 4), 2, (4, 5)), {"classes": 1000, "images": 6}, None),
    "512x512_diffusion": ((256, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6)), {"classes": 1000}, None),
    "64x64_classifier": ((128, (1, 2, 3, 4), 4, (1, 2, 3)), {"side": 8, "outputs": 1000}, 65_438_568),
    "128x128_classifier": ((128, (1, 1, 2, 3, 4), 2, (2, 3, 4)), {"side": 8, "outputs": 1000}, 42_568_040),
    "256x256_classifier": ((128, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5)), {"side": 8, "outputs": 1000}, 54_096_360),
    "512x512_classifier": ((128, (0.5, 1, 1, 2, 2, 4, 4), 2, (4, 5, 6)), {"side": 8, "outputs": 1000}, None),
}  # fmt: skip
"""num_channels, channel_mult, num_res_blocks, levels with attention; what else; the published number of parameters."""


def without_memory(name):
    sizes, others, _ = FILES[name]
    found = shapes(*sizes, time=sizes[0], **others)
    return {key: torch.empty(shape, device="meta") for key, shape in found.items()}


def test_every_published_file_of_the_table_is_tested():
    assert FILES.keys() == PUBLISHED.keys()


@pytest.mark.parametrize("name", FILES)
def test_each_published_file_is_known_by_its_shapes(name, tmp_path):
    weights = without_memory(name)
    if count := FILES[name][2]:
        assert sum(weight.numel() for weight in weights.values()) == count
    assert published_name(openai.architecture_of(weights)) == name
    loaded = openai.from_weights(weights, tmp_path / "any_name.pt")
    with torch.device("meta"):
        network = loaded.builder(**loaded.settings)
    network.load_state_dict(loaded.weights)
    assert sum(weight.numel() for weight in loaded.weights.values()) == sum(w.numel() for w in weights.values())


def test_no_two_published_files_have_one_architecture():
    assert len({str(sorted(architecture.items())) for architecture, _ in PUBLISHED.values()}) == len(PUBLISHED)


@pytest.mark.parametrize(
    ("name", "schedule", "steps", "first", "last"),
    [  # 1 - alpha_bar after the first step, and alpha_bar after half of them, by the formulas of the two papers
        ("64x64_diffusion", "cosine", 1000, None, None),
        ("256x256_diffusion_uncond", "linear", 1000, 1e-4, 0.02),
        ("cifar10_uncond_50M_500K", "cosine", 4000, None, None),
        ("upsample_cond_500K", "linear", 4000, 2.5e-5, 0.005),
    ],
)
def test_the_schedule_of_a_published_file_is_that_of_its_flags(name, schedule, steps, first, last):
    from ddpm.interop.openai_configuration import schedule_config

    made = wiring.instantiate(OmegaConf.create(schedule_config(PUBLISHED[name][1])), "schedule").alpha_bar
    if schedule == "linear":
        expected = math.prod(1 - (first + (last - first) * i / (steps - 1)) for i in range(steps // 2))
    else:
        f = [math.cos((t / steps + 0.008) / 1.008 * math.pi / 2) ** 2 for t in (0, steps // 2)]
        expected = f[1] / f[0]
    assert len(made) == steps + 1
    assert made[steps // 2].item() == pytest.approx(expected, rel=1e-9)


# Flags of other files


def test_a_file_of_other_shapes_without_flags_says_which_it_needs(file):
    with pytest.raises(
        ValueError, match=r"not have the shapes of a published model.*model\.json beside it must be"
    ) as refusal:
        openai.load_openai(file(filled(shapes(**SMALL))))
    needed = ["image_size", "diffusion_steps", "noise_schedule", "rescale_timesteps", "use_new_attention_order"]
    assert f"{', '.join(needed)}, num_heads or num_head_channels among them" in str(refusal.value)


@pytest.mark.parametrize("name", ["image_size", "use_new_attention_order", "num_heads"])
def test_a_flag_that_is_left_out_is_asked_for(name, file):
    flags = {flag: value for flag, value in FLAGS.items() if flag != name}
    with pytest.raises(ValueError, match=rf"trained with, {name}.* among them; known are"):
        openai.load_openai(file(filled(shapes(**SMALL)), **flags))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"noise_schedule": "sqrt"}, r"model\.json: noise_schedule must be one of linear, cosine, got 'sqrt'"),
        ({"image_size": "64"}, r"model\.json: image_size must be a positive integer, got '64'"),
        ({"image_size": 15}, r"image_size must be a multiple of 2, for its levels, got 15"),
        ({"num_heads": 5}, r"num_heads must be a divisor of 64, the width of a level with attention, got 5"),
        ({"num_head_channels": 7, "num_heads": None}, r"num_head_channels must be a divisor of 64"),
        ({"num_head_channels": 8}, r"num_heads and num_head_channels must be one or the other"),
        ({"rescale_timesteps": 1}, r"rescale_timesteps must be true or false, got 1"),
        ({"num_chanels": 32}, r"has 'num_chanels', which is none of image_size"),
        ({"small_size": 8}, r"small_size has no effect, as model\.pt is not an upsampler"),
        ({"dropout": 2}, r"dropout must be a number at least 0 and at most 1"),
    ],
)
def test_a_flag_that_cannot_be_is_named_with_its_file(flags, message, file):
    with pytest.raises(ValueError, match=message) as refusal:
        openai.load_openai(file(filled(shapes(**SMALL)), **FLAGS | flags))
    assert "model." in str(refusal.value)


def test_flags_beside_a_published_file_replace_what_is_known_of_it(tmp_path):
    (tmp_path / "mine.json").write_text('{"noise_schedule": "cosine", "num_heads": 8, "diffusion_steps": 500}')
    flags = openai.from_weights(without_memory("256x256_diffusion"), tmp_path / "mine.pt").flags
    assert (flags.noise_schedule, flags.num_heads, flags.num_head_channels) == ("cosine", 8, None)
    assert (flags.diffusion_steps, flags.image_size) == (500, 256)


def test_a_classifier_knows_the_size_of_its_images(file):
    weights = filled(shapes(**SMALL, side=8, outputs=10))
    with pytest.raises(ValueError, match="image_size must be 16, as in the weights, got 32"):
        openai.load_openai(file(weights, **FLAGS | {"image_size": 32}))


# Weights that are not those of their networks

SPOILED = {**SMALL, "blocks": 1}


@pytest.mark.parametrize("side", [None, 8], ids=["U-Net", "classifier"])
def test_a_weight_that_is_missing_is_named(side, tmp_path):
    weights = filled(shapes(**SPOILED, side=side, outputs=6))
    (tmp_path / "model.json").write_text(json.dumps(FLAGS))
    for key in list(weights)[::4]:
        others = {other: weight for other, weight in weights.items() if other != key}
        with pytest.raises(ValueError, match=r"^ckpt=.*model\.pt: (it lacks|the weights lack|.* has shape)") as refusal:
            openai.from_weights(others, tmp_path / "model.pt")
        stem = key.rpartition(".")[0]
        assert stem in str(refusal.value) or key.startswith(("label_emb", "input_blocks.1.0")), refusal.value


@pytest.mark.parametrize("side", [None, 8], ids=["U-Net", "classifier"])
def test_a_weight_of_another_shape_is_one_error(side, tmp_path):
    weights = filled(shapes(**SPOILED, side=side, outputs=6))
    (tmp_path / "model.json").write_text(json.dumps(FLAGS))
    others = [torch.zeros(0), torch.zeros(()), torch.zeros(1), torch.zeros(7, 1), torch.zeros(64, 32, 1, 1)]
    for number, key in enumerate(list(weights)[::3]):
        other = others[number % len(others)]
        assert other.shape != weights[key].shape
        with pytest.raises(ValueError, match=r"model\.pt: "):
            openai.from_weights({**weights, key: other}, tmp_path / "model.pt")


@pytest.mark.parametrize("key", ["label_emb.bias", "input_blocks.1.0.h_upd.weight", "extra.weight", "x"])
def test_a_weight_too_many_is_named(key, tmp_path):
    (tmp_path / "model.json").write_text(json.dumps(FLAGS))
    with pytest.raises(ValueError, match=rf"model\.pt: (it has|the weights have) {key}, which"):
        openai.from_weights({**filled(shapes(**SMALL)), key: torch.zeros(1)}, tmp_path / "model.pt")


# Files that are no weights


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


CALLS = {
    "a command": lambda mark: Call(os.system, f"touch {mark}"),
    "a file": lambda mark: Call(builtins.open, str(mark), "w"),
    "an expression": lambda mark: Call(builtins.eval, f"open({str(mark)!r}, 'w')"),
}


def older_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def bare_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, older_format, bare_pickle])
@pytest.mark.parametrize("call", CALLS)
def test_a_file_that_calls_something_leaves_no_mark(call, save, tmp_path):
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    save({"time_embed.0.weight": CALLS[call](mark)}, path)
    with pytest.raises(ValueError, match=r"^ckpt=.*evil\.pt cannot be read as data: .*no code in it was run$") as error:
        openai.load_openai(path)
    assert "weights_only" not in str(error.value)
    assert not mark.exists()


def test_a_file_that_is_cut_off_or_changed_is_one_error(file):
    path = file(filled(shapes(**SMALL)), **FLAGS)
    whole = path.read_bytes()
    for size in (0, 1, 1000, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(ValueError, match="cannot be read as data"):
            openai.load_openai(path)
    place = len(whole) // 2
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    with pytest.raises(ValueError, match="is damaged; no code in it was run"):
        openai.load_openai(path)


@pytest.mark.parametrize(
    "content",
    [
        *([], {}, torch.zeros(3), {"a": 1}, {"a": "x"}, {1: torch.zeros(3)}, {"model": {"a": torch.zeros(3)}}),
        *({"a": torch.zeros(1).expand(10**6, 10**6)}, {"a": torch.zeros(3, dtype=torch.int64)}, {"a": None}),
        {"a": torch.zeros(3).to_sparse()},
    ],
    ids=range(11),
)
def test_a_file_of_something_else_is_one_error(content, file):
    with pytest.raises(ValueError, match=r"^ckpt=.*model\.pt "):
        openai.load_openai(file(content))


def test_a_state_dict_of_another_program_is_told_from_theirs(file):
    network = torch.nn.Sequential(torch.nn.Linear(3, 3))
    with pytest.raises(ValueError, match="not weights of improved-diffusion or guided-diffusion"):
        openai.load_openai(file(network.state_dict()))
    with pytest.raises(ValueError, match="there is none at"):
        openai.load_openai(file(network.state_dict()).with_name("absent.pt"))


# As a model of ours


def denoised(weights, path, t, cond):
    """What the model that a command builds believes of x_t, and x_t."""
    config = OmegaConf.create(openai_configuration(openai.load_openai(path)))
    module = build.module(config).model
    module.network.load_state_dict(openai.load_openai(path).weights)
    denoiser = module.double().eval().denoiser("raw")
    return module, denoiser(images(), t, cond)


@pytest.mark.parametrize("label", [None, torch.tensor([1, 9, 0])], ids=["no classes", "classes"])
@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_model_predicts_what_their_network_and_schedule_say(schedule, label, file):
    weights = filled(shapes(**SMALL, classes=None if label is None else 10))
    path, t = file(weights, **FLAGS | {"noise_schedule": schedule}), 300
    with torch.no_grad():
        module, prediction = denoised(weights, path, t, {} if label is None else {"label": label})
        output = Theirs(weights, heads=4).image(images(), torch.full((3,), t - 1), label, blocks=2)
    eps, place = output.chunk(2, dim=1)  # their network has the noise first, then where the variance lies
    alpha_bar = module.sampler.process.schedule.alpha_bar[t].item()
    x0 = (images() - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    assert_same(prediction.x0, x0.clamp(-1, 1))
    assert_same(prediction.extra, place)


@pytest.mark.parametrize("flags", [{}, {"sigma_small": True}, {"predict_xstart": True}], ids=str)
def test_what_flags_say_of_the_process_is_followed(flags, file):
    config = openai_configuration(openai.load_openai(file(filled(shapes(**SMALL, outputs=3)), **FLAGS | flags)))
    assert config["variance"]["_target_"].endswith("FixedSmall" if "sigma_small" in flags else "FixedLarge")
    assert config["objective"]["_target_"].endswith("X0" if "predict_xstart" in flags else "Eps")
    assert config["cond"]["_target_"].endswith("NoCondition")


def test_a_classifier_is_built_as_what_its_training_made(file):
    weights = filled(shapes(**SMALL, side=8, outputs=10))
    loaded = openai.load_openai(file(weights, **FLAGS))
    config = OmegaConf.create(openai_configuration(loaded))
    module = build.module(config).model
    module.network.load_state_dict(loaded.weights)
    assert module.network.classifies
    assert module.condition.network_settings == {"num_classes": 10}
    assert module.image_shape == (3, 16, 16)
    with torch.no_grad():
        found = NetworkDenoiser(module.network.double(), module.objective).raw(images(), 300, {})
        expected = Theirs(weights, heads=4).logits(images(), torch.full((3,), 299), blocks=2)
    assert_same(found, expected)


def test_an_upsampler_is_told_small_images_and_says_if_their_size_is_left_out(file):
    weights = filled(shapes(**SMALL, images=6))
    with pytest.raises(ValueError, match="trained with, small_size among them"):
        openai.load_openai(file(weights, **FLAGS))
    with pytest.raises(ValueError, match="small_size must be a divisor of image_size = 16, got 5"):
        openai.load_openai(file(weights, **FLAGS, small_size=5))
    module = build.module(
        OmegaConf.create(openai_configuration(openai.load_openai(file(weights, **FLAGS, small_size=4))))
    ).model
    assert module.network.concat_channels is True
    assert module.condition.of({"image": images()})["concat"].shape == (3, 3, 4, 4)


def test_an_upsampler_of_classes_is_told_both(file):
    weights = filled(shapes(**SMALL, classes=10, images=6))
    path, small, label, t = file(weights, **FLAGS, small_size=4), images()[:, :, ::4, ::4], torch.tensor([1, 9, 0]), 300
    with torch.no_grad():
        module, prediction = denoised(weights, path, t, {"label": label, "concat": small})
        large = torch.nn.functional.interpolate(small, (16, 16), mode="bilinear")
        output = Theirs(weights, heads=4).image(
            torch.cat([images(), large], dim=1), torch.full((3,), t - 1), label, blocks=2
        )
    eps = output[:, :3]
    alpha_bar = module.sampler.process.schedule.alpha_bar[t].item()
    x0 = (images() - (1 - alpha_bar) ** 0.5 * eps) / alpha_bar**0.5
    assert_same(prediction.x0, x0.clamp(-1, 1))
    told = module.condition.of({"image": images(), "label": label})
    assert told["concat"].shape == (3, 3, 4, 4)
    assert told["label"].equal(label)


def test_the_command_draws_from_a_file_of_theirs_by_class(file, config, tmp_path):
    path = file(filled(shapes(**SMALL, classes=10)), **FLAGS)
    words = (
        "trainer=cpu",
        "sampler.steps=2",
        "class=[1,9]",
        "format=npz",
        "num_samples=4",
        f"out={tmp_path / 'drawn'}",
    )
    sample.run_sample(config("sample", f"ckpt={path}", *[f"+{w}" if w.startswith("sampler.") else w for w in words]))
    assert (tmp_path / "drawn" / "grid.png").exists()
    assert json.loads((tmp_path / "drawn" / "generation.json").read_text())["class"] == ["1", "9"]
