"""The keyed random numbers: known answers, independence of the batch, distribution, independence of each other.

All draws are fixed by their keys, so no statistical test here can fail by chance; each states its sample size and
allows four standard errors.
"""

import itertools
import math
import os
import subprocess
import sys

import pytest
import torch
from precision import roundings
from scipy import stats

import ddpm.base.rng
from ddpm.base.rng import Rng, gaussian_pair, philox

IDS = torch.arange(64)


def words(text: str) -> tuple[int, ...]:
    return tuple(int(word, 16) for word in text.split())


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ("0 0 0 0", "0 0", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
        ("ffffffff " * 4, "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
        ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
    ],
    ids=["zeros", "ones", "digits of pi"],
)
def test_philox_gives_the_known_answers_of_random123(counter, key, expected):
    c0, c1, c2, c3 = (torch.tensor([word]) for word in words(counter))
    k0, k1 = words(key)
    assert tuple(word.item() for word in philox((c0, c1, c2, c3), (k0, k1))) == words(expected)


@pytest.mark.parametrize("shape", [(), (1,), (5,), (3, 8, 8), (1, 31, 33)], ids=str)
def test_noise_is_bitwise_the_same_whatever_the_batch_the_order_and_the_threads(shape):
    rng = Rng(seed=3, scope="sample")
    whole = rng.at(7, IDS).normal("noise", shape)
    assert whole.shape == (64, *shape)
    assert whole.dtype == torch.float32
    for size in (1, 7, 64):
        parts = torch.cat([rng.at(7, ids).normal("noise", shape) for ids in IDS.split(size)])
        assert torch.equal(parts, whole)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(rng.at(7, IDS[order]).normal("noise", shape), whole[order])
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        assert torch.equal(rng.at(7, IDS).normal("noise", shape), whole)
    finally:
        torch.set_num_threads(threads)


def test_uniforms_and_integers_do_not_depend_on_the_batch():
    rng = Rng(3, "train")
    uniform, integers = rng.at(1, IDS).uniform("u", (3,)), rng.at(1, IDS).integers("n", 1000)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    for ids in order.split(7):
        assert torch.equal(rng.at(1, ids).uniform("u", (3,)), uniform[ids])
        assert torch.equal(rng.at(1, ids).integers("n", 1000), integers[ids])


def test_the_same_question_has_the_same_answer_and_no_state_is_kept():
    draws = Rng(0, "train").at(4, IDS)
    first = draws.normal("noise", (8,))
    torch.manual_seed(1)
    draws.uniform("noise")
    assert torch.equal(draws.normal("noise", (8,)), first)


def test_another_seed_scope_stream_step_or_id_gives_other_numbers():
    keys = itertools.product((0, 1, 10), ("train", "sample"), ("noise", "t"), (0, 1, 1000), (0, 1, 2**32, 2**40 + 1))
    drawn = {
        tuple(Rng(seed, scope).at(step, torch.tensor([i])).bits(stream, 4)[0].tolist())
        for seed, scope, stream, step, i in keys
    }
    assert len(drawn) == 3 * 2 * 2 * 3 * 4


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, "train", "noise/t"), (0, "train/noise", "t")),
        ((1, "2/a", "b"), (1, "2", "a/b")),
        ((1, "'", ""), (1, "", "'")),
    ],
)
def test_a_stream_is_named_by_scope_and_stream_and_not_by_their_concatenation(one, other):
    (seed, scope, stream), (seed2, scope2, stream2) = one, other
    assert Rng(seed, scope).key(stream) != Rng(seed2, scope2).key(stream2)


def test_ids_above_two_to_the_32_have_numbers_of_their_own_that_do_not_depend_on_the_batch():
    ids = torch.tensor([5, 2**32 + 5, 2**33 + 5, 2**62 + 5])
    rng = Rng(0, "sample")
    z = rng.at(0, ids).normal("noise", (4096,))
    for i in range(4):
        assert torch.equal(rng.at(0, ids[i : i + 1]).normal("noise", (4096,))[0], z[i])
    correlations = (z @ z.T / 4096)[~torch.eye(4, dtype=torch.bool)]
    assert correlations.abs().max() < 4 / math.sqrt(4096)


def test_another_process_draws_the_same_bits():
    program = (
        "import torch; from ddpm.base.rng import Rng; d = Rng(5, 'sample').at(9, torch.arange(4));"
        "print(d.normal('noise', (9,)).view(torch.int32).tolist(), d.bits('t', 5).tolist())"
    )
    draws = Rng(5, "sample").at(9, torch.arange(4))
    here = f"{draws.normal('noise', (9,)).view(torch.int32).tolist()} {draws.bits('t', 5).tolist()}"
    environment = os.environ | {"PYTHONHASHSEED": "123"}  # Python's own hash of a text differs between processes
    there = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert there.stdout.strip() == here


def test_normals_have_the_moments_and_the_tail_of_a_standard_normal():
    z = Rng(0, "train").at(0, IDS).normal("noise", (16384,)).double().flatten()
    n = z.numel()  # 2^20
    assert abs(z.mean()) < 4 / math.sqrt(n)
    assert abs(z.square().mean() - 1) < 4 * math.sqrt(2 / n)
    assert abs(z.pow(3).mean()) < 4 * math.sqrt(15 / n)
    assert abs(z.pow(4).mean() - 3) < 4 * math.sqrt(96 / n)
    for bound in (1, 2, 3, 4):
        expected = 2 * stats.norm.sf(bound)
        assert abs((z.abs() > bound).double().mean() - expected) < 4 * math.sqrt(expected / n)
    assert 4.5 < z.abs().max() < 6.7  # of 2^20 normals the largest is above 4.5 but for odds of 1 in 1,000


def test_normals_pass_the_kolmogorov_smirnov_test_at_a_quarter_of_a_million():
    z = Rng(1, "train").at(3, IDS).normal("noise", (4096,)).double().flatten()
    assert stats.kstest(z.numpy(), "norm").pvalue > 0.01


def test_the_extreme_words_give_finite_normals():
    words = torch.tensor([0, 1, 2**31, 2**32 - 2, 2**32 - 1])
    for z in gaussian_pair(*(word.flatten() for word in torch.meshgrid(words, words, indexing="ij"))):
        assert z.isfinite().all()
        assert z.abs().max() < 6.67


def test_uniforms_lie_in_the_half_open_interval_and_fill_it_evenly():
    u = Rng(0, "train").at(0, IDS).uniform("u", (4096,)).double().flatten()  # 2^18
    assert u.min() >= 0
    assert u.max() < 1
    assert stats.kstest(u.numpy(), "uniform").pvalue > 0.01


@pytest.mark.parametrize(("word", "expected"), [(0, 0.0), (2**31, 0.5), (2**32 - 1, 1 - 2.0**-24)])
def test_a_uniform_is_never_one(monkeypatch, word, expected):
    monkeypatch.setattr(ddpm.base.rng.Draws, "bits", lambda self, stream, num: torch.full((1, num), word))
    draws = Rng(0, "train").at(0, torch.zeros(1, dtype=torch.int64))
    assert draws.uniform("u").item() == expected
    assert draws.integers("n", 10).item() == int(10 * expected)


@pytest.mark.parametrize("num", [1, 2, 10, 1000])
def test_integers_are_uniform_over_the_numbers_below_the_bound(num):
    drawn = Rng(0, "train").at(0, torch.arange(50_000)).integers("n", num)
    counts = torch.bincount(drawn, minlength=num)
    assert len(counts) == num
    assert counts.min() > 0
    if num > 1:
        assert 0.005 < stats.chisquare(counts.numpy()).pvalue < 0.995


def test_neighbouring_ids_steps_streams_and_pixels_are_independent():
    rng, ids = Rng(0, "train"), torch.arange(257)
    z = rng.at(0, ids).normal("noise", (1024,)).double()
    pairs = {
        "ids": (z[:-1], z[1:]),
        "steps": (z, rng.at(1, ids).normal("noise", (1024,)).double()),
        "streams": (z, rng.at(0, ids).normal("step", (1024,)).double()),
        "scopes": (z, Rng(0, "sample").at(0, ids).normal("noise", (1024,)).double()),
        "seeds": (z, Rng(1, "train").at(0, ids).normal("noise", (1024,)).double()),
        "pixels": (z[:, :-1], z[:, 1:]),
        "one Philox call": (z[:, :768], z[:, 256:]),  # call i makes the numbers i, i + 256, i + 512 and i + 768
    }
    for name, (a, b) in pairs.items():
        n = a.numel()  # about 2^18 pairs
        assert abs((a * b).mean()) < 4 / math.sqrt(n), name
        assert abs(((a**2 - 1) * (b**2 - 1)).mean()) < 4 * 2 / math.sqrt(n), name


@pytest.mark.slow
def test_compiled_normals_equal_the_eager_ones_to_rounding_and_do_not_depend_on_the_batch():
    eager, compiled = Rng(3, "sample"), Rng(3, "sample", compiled=True)
    for shape in [(1,), (5,), (33,), (3, 8, 8), (1, 31, 33)]:
        whole = compiled.at(7, IDS).normal("noise", shape)
        assert (whole - eager.at(7, IDS).normal("noise", shape)).abs().max() < roundings(
            2, scale=6.66
        )  # the largest there is
        for size in (1, 7):
            parts = torch.cat([compiled.at(7, ids).normal("noise", shape) for ids in IDS.split(size)])
            assert torch.equal(parts, whole)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_gpu_draws_the_same_bits_and_the_same_normals_to_rounding():
    here, there = (Rng(3, "sample").at(7, IDS.to(device)) for device in ("cpu", "cuda"))
    assert torch.equal(there.bits("t", 9).cpu(), here.bits("t", 9))
    assert torch.equal(there.uniform("u", (9,)).cpu(), here.uniform("u", (9,)))
    assert (there.normal("noise", (3, 8, 8)).cpu() - here.normal("noise", (3, 8, 8))).abs().max() < roundings(
        8, scale=6.66
    )
    whole = there.normal("noise", (3, 31, 33))
    for size in (1, 7):
        parts = [Rng(3, "sample").at(7, ids).normal("noise", (3, 31, 33)) for ids in IDS.cuda().split(size)]
        assert torch.equal(torch.cat(parts), whole)
