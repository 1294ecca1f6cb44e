"""Files of the authors of denoising diffusion GANs, against networks that are read off their keys alone."""

import argparse
import math
import os
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from omegaconf import OmegaConf
from precision import assert_same

from ddpm.base.untrusted import Inert, load_tensors
from ddpm.config import load
from ddpm.diffusion.denoiser import StaticThresholding
from ddpm.diffusion.variance import FixedSmall
from ddpm.interop import ddgan
from ddpm.networks.ddgan_discriminator import DDGANDiscriminator

KINDS = {"CIFAR-10": ((1, 2, 2, 2), 1, 4, 32, 4), "256 x 256": ((1, 1, 2, 2, 4, 4), 4, 3, 256, 2)}
"""channel_mults, the level with attention, n_mlp, the side of the images and the number of steps."""
ROOT = 2**0.5
NOTHING = OmegaConf.create({})


def filtered(x, up=1, pad=(1, 1)):
    """Zeros in between, zeros around, then [1, 3, 3, 1] both ways."""
    spread = x.new_zeros(*x.shape[:2], up * x.shape[2], up * x.shape[3])
    spread[:, :, ::up, ::up] = x
    taps = torch.tensor([1.0, 3.0, 3.0, 1.0]).to(x) / 8 * up
    spread = F.pad(spread, (*pad, *pad)).flatten(0, 1)[:, None]
    return F.conv2d(F.conv2d(spread, taps.view(1, 1, 1, 4)), taps.view(1, 1, 4, 1)).unflatten(0, x.shape[:2])[:, :, 0]


class Theirs:
    """Their networks, 8 channels wide, in float64 but for the waves of the time. Weights are drawn as they are used."""

    def __init__(self, seed=0):
        self.w, self.generator = OrderedDict(), torch.Generator().manual_seed(seed)

    def weight(self, key, *shape):
        if key not in self.w:
            self.w[key] = torch.randn(shape, generator=self.generator) / (
                math.prod(shape[1:]) ** 0.5 if shape[1:] else 3
            )
        return self.w[key].double()

    def linear(self, key, x, out):
        return F.linear(x, self.weight(f"{key}.weight", out, x.shape[1]), self.weight(f"{key}.bias", out))

    def conv(self, key, x, out, side=3, bias=True, **how):
        weight = self.weight(f"{key}.weight", out, x.shape[1], side, side)
        return F.conv2d(x, weight, self.weight(f"{key}.bias", out) if bias else None, **{"padding": side // 2} | how)

    def group_norm(self, key, x):
        scale, shift = (self.weight(f"{key}.{kind}", x.shape[1]) for kind in ("weight", "bias"))
        return F.group_norm(x, x.shape[1] // 4, scale, shift, eps=1e-6)

    def waves(self, time, channels):
        rates = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(channels // 2) / (channels // 2 - 1))
        angles = time.float()[:, None] * rates
        return torch.cat([angles.sin(), angles.cos()], 1).double()

    def next(self):
        self.number += 1
        return f"module.all_modules.{self.number}"

    def norm(self, key, x):
        scale, shift = self.linear(f"{key}.style", self.style, 2 * x.shape[1])[:, :, None, None].chunk(2, 1)
        return F.silu(scale * F.group_norm(x, x.shape[1] // 4, eps=1e-6) + shift)

    def block(self, x, out, attends=False, resample=None):
        key, again = self.next(), resample or (lambda x: x)
        h = self.conv(f"{key}.Conv_0", again(self.norm(f"{key}.GroupNorm_0", x)), out)
        h = h + self.linear(f"{key}.Dense_0", F.silu(self.emb), out)[:, :, None, None]
        h = self.conv(f"{key}.Conv_1", self.norm(f"{key}.GroupNorm_1", h), out)
        if resample or x.shape[1] != out:
            x = self.conv(f"{key}.Conv_2", again(x), out, 1)
        h = (x + h) / ROOT
        return (h + self.attention(self.next(), h)) / ROOT if attends else h

    def nin(self, key, x):
        weight, bias = (self.weight(f"{key}.{name}", *[x.shape[1]] * dims) for name, dims in (("W", 2), ("b", 1)))
        return torch.einsum("bcn,cd->bdn", x, weight) + bias[:, None]

    def attention(self, key, x):
        normed = self.group_norm(f"{key}.GroupNorm_0", x).flatten(2)
        q, k, v = (self.nin(f"{key}.NIN_{i}", normed) for i in range(3))
        mixed = v @ (q.mT @ k / q.shape[1] ** 0.5).softmax(-1).mT
        return self.nin(f"{key}.NIN_3", mixed).view(x.shape)

    def image(self, x, time, z, mults, attention, n_mlp):
        self.number, widths = -1, [8 * mult for mult in mults]
        self.emb = self.linear(self.next(), self.waves(time, 8), 32)
        self.emb = self.linear(self.next(), F.silu(self.emb), 32)
        self.style = z / (z.square().mean(1, keepdim=True) + 1e-8).sqrt()
        for number in range(n_mlp + 1):
            self.style = F.silu(self.linear(f"module.z_transform.{2 * number + 1}", self.style, 6))
        h, pyramid = self.conv(self.next(), x, 8), x
        kept = [h]
        for level, width in enumerate(widths):
            for _ in range(2):
                h = self.block(h, width, attends=level == attention)
                kept.append(h)
            if level < len(widths) - 1:
                h = self.block(h, width, resample=lambda x: filtered(x)[..., ::2, ::2])
                wide = filtered(pyramid, pad=(2, 2))
                h = pyramid = (self.conv(f"{self.next()}.Conv2d_0", wide, width, stride=2, padding=0) + h) / ROOT
                kept.append(h)
        h = self.block(self.block(h, width, attends=True), width)
        for level, width in reversed([*enumerate(widths)]):
            for last in (False, False, True):
                h = self.block(torch.cat([h, kept.pop()], 1), width, attends=last and level == attention)
            if level:
                h = self.block(h, width, resample=lambda x: filtered(x, up=2, pad=(2, 1)))
        h = F.silu(self.group_norm(self.next(), h))
        return self.conv(self.next(), h, 3).tanh()

    def logits(self, x, time, x_t, mults, halving):
        act, key = (lambda x: F.leaky_relu(x, 0.2)), "t_embed.main"
        emb = act(self.linear(f"{key}.2", act(self.linear(f"{key}.0", self.waves(time, 12), 12)), 12))
        h = self.conv("start_conv", torch.cat([x, x_t], 1), 4 * mults[0], 1)
        for n, width in enumerate(4 * mult for mult in mults[1:]):
            key = f"conv{n + 1}"
            shift = self.linear(f"{key}.dense_t1", emb, width)[:, :, None, None]
            inner = act(self.conv(f"{key}.conv1.0", act(h), width) + shift)
            if n in halving:
                inner, h = filtered(inner)[..., ::2, ::2], filtered(h)[..., ::2, ::2]
            skip = self.conv(f"{key}.skip.0", h, width, 1, bias=False)
            h = (self.conv(f"{key}.conv2.0", inner, width) + skip) / ROOT
        apart = (h.view(4, -1, *h.shape[1:]).var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3)).repeat(4)
        h = torch.cat([h, apart[:, None, None, None].expand(-1, 1, *h.shape[2:])], 1)
        return self.linear("end_linear", act(self.conv("final_conv", h, width)).sum((2, 3)), 1)[:, 0]


def images(num, side=32, seed=1):
    return torch.randn(num, 3, side, side, generator=torch.Generator().manual_seed(seed)).double()


Z = torch.randn(3, 5, generator=torch.Generator().manual_seed(2)).double()
TIMES = torch.tensor([0, 1, 3])


@torch.no_grad()
def made_up(kind="CIFAR-10", seed=0):
    """The weights of one of their generators, and what it makes of `images(3)`, TIMES and Z."""
    theirs = Theirs(seed)
    image = theirs.image(images(3), TIMES, Z, *KINDS[kind][:3])
    return theirs.w, image


@pytest.fixture
def saved(tmp_path):
    def save(content, name="netG_1200.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    return save


@pytest.mark.parametrize("kind", KINDS)
def test_a_loaded_generator_gives_the_images_of_theirs(kind, saved):
    weights, expected = made_up(kind)
    model, config = load.from_checkpoint(saved(weights), NOTHING)
    *_, size, steps = KINDS[kind]
    assert (config.schedule.num_timesteps, list(config.data.size)) == (steps, [size] * 2)
    with torch.no_grad():
        assert_same(model.network.double()(images(3), TIMES, latent=Z), expected)
    assert expected.std() > 0.05


def their_discriminator_key(key):
    top = {"time.linear1": "t_embed.main.0", "time.linear2": "t_embed.main.2", "stem": "start_conv"}
    top |= {"final": "final_conv", "out": "end_linear"}
    inner = {"conv1": "conv1.0", "conv2": "conv2.0", "time": "dense_t1", "shortcut": "skip.0"}
    module, _, kind = key.rpartition(".")
    if module in top:
        return f"{top[module]}.{kind}"
    _, number, layer = module.split(".")
    return f"conv{int(number) + 1}.{inner[layer]}.{kind}"


@pytest.mark.parametrize(
    ("mults", "halving"), [([2, 2, 4, 8, 8], [1, 2, 3]), ([2, 4, 8, 8, 8, 8, 8], [0, 1, 2, 3, 4, 5])]
)
def test_a_discriminator_of_their_weights_gives_the_logits_of_theirs(mults, halving):
    theirs, time = Theirs(), torch.arange(8) % 4
    network = DDGANDiscriminator(3, 4, mults, halving, time_channels=12).double()
    with torch.no_grad():
        expected = theirs.logits(images(8, 64), time, images(8, 64, seed=3), mults, halving)
        network.load_state_dict({key: theirs.w.pop(their_discriminator_key(key)) for key in network.state_dict()})
        assert_same(network(images(8, 64), time, images(8, 64, seed=3)), expected)
    assert not theirs.w


def training(**others):
    """What a content.pth holds, and the averages in it."""
    raw, averages = made_up()[0], made_up(seed=1)[0]
    state = {number: {"step": 3, "ema": averages[key]} for number, key in enumerate(raw)}
    arguments = argparse.Namespace(num_timesteps=8, dataset="cifar10", attn_resolutions=(16,))
    content = {"epoch": 2, "global_step": 9, "args": arguments, "netG_dict": raw, "netD_dict": {}}
    return {**content, "optimizerG": {"state": state, "param_groups": []}, **others}, averages


def test_a_whole_training_gives_its_averages_and_its_number_of_steps(saved):
    content, averages = training()
    path = saved(content, "content.pth")
    model, config = load.from_checkpoint(path, NOTHING)
    expected = ddgan.load_ddgan(saved(averages)).weights
    assert all(weight.equal(expected[key]) for key, weight in model.network.state_dict().items())
    assert config.schedule.num_timesteps == 8
    read = load_tensors(path, inert=["argparse.Namespace"])["args"]
    assert (type(read), read.dataset) == (Inert, "cifar10")
    with pytest.raises(ValueError, match=r"refers to argparse\.Namespace"):
        load_tensors(path)
    raw = ddgan.load_ddgan(saved({**content, "optimizerG": {"state": {}}}, "raw.pth")).weights
    assert raw["stem.weight"].equal(content["netG_dict"]["module.all_modules.2.weight"])
    content["optimizerG"]["state"].pop(7)
    with pytest.raises(ValueError, match="has averages of 383 weights, and its generator has 384"):
        ddgan.load_ddgan(saved(content, "content.pth"))


def test_the_model_is_a_generator_of_four_steps_that_can_be_changed(saved):
    path = saved(made_up()[0])
    model, _ = load.from_checkpoint(path, OmegaConf.create({"schedule": {"num_timesteps": 2}}))
    assert model.sampler.process.schedule.alpha_bar.shape == (3,)
    model, _ = load.from_checkpoint(path, NOTHING)
    published = torch.tensor([1, 0.521745, 0.078676, 0.003429, 4.319e-5]).double()
    torch.testing.assert_close(model.sampler.process.schedule.alpha_bar, published, rtol=2e-4, atol=1e-6)
    assert isinstance(model.sampler.variance, FixedSmall)
    assert not isinstance(model.denoiser("raw"), StaticThresholding)


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize("place", ["args", "epoch", "netG_dict"])
def test_a_training_that_calls_something_leaves_no_mark(place, saved, tmp_path):
    content, _ = training()
    call = Call(os.system, f"touch {tmp_path / 'mark'}")
    content[place] = {**content[place], "call": call} if place == "netG_dict" else call
    with pytest.raises(ValueError, match=r"content\.pth cannot be read as data: it refers to .*no code in it was run$"):
        load.from_checkpoint(saved(content, "content.pth"), NOTHING)
    assert not (tmp_path / "mark").exists()


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("all_modules.5.Conv_2.bias", None, "the weights lack all_modules.5.Conv_2.bias"),
        ("all_modules.8.NIN_0.W", torch.zeros(3), "NIN_0.W has shape"),
        ("all_modules.40.weight", torch.zeros(3), "last layer must be one of 39, 55"),
        ("extra", torch.zeros(3), "have extra, which such a network does not have"),
        ("extra", 3, "'module.extra' is none"),
    ],
)
def test_weights_of_another_network_are_one_error(key, value, message, saved):
    weights = made_up()[0] | {f"module.{key}": value}
    weights = {key: value for key, value in weights.items() if value is not None}
    with pytest.raises(ValueError, match=rf"^ckpt=\S*netG_1200\.pth:? (?!ckpt).*{message}"):
        load.from_checkpoint(saved(weights), NOTHING)
