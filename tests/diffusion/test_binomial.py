"""Binomial diffusion against the chain itself, multiplied out state by state, and against what coins are known to hold.

Where a test asks a network nothing, one pixel of two values can be written out whole: the chain is a product of 2 x 2
matrices, and each expectation a sum over its states.
"""

import itertools
import math

import pytest
import torch
from precision import assert_same

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.denoiser import NetworkDenoiser
from ddpm.diffusion.distributions import Bernoulli
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.bound import prior_term, step_term
from ddpm.diffusion.losses.vlb import VLBLoss
from ddpm.diffusion.objective import CERTAIN, Logit
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.ddim import DDIM
from ddpm.diffusion.samplers.timestep_spacing import uniform
from ddpm.diffusion.schedules.base import from_betas
from ddpm.diffusion.schedules.curves import jsd
from ddpm.diffusion.time_sampler import Uniform
from ddpm.diffusion.variance import FixedSmall
from ddpm.model.codec import BinaryCodec

BETAS = [0.1, 0.3, 0.2, 0.6, 0.5]
PROCESS = BinomialDiffusion(from_betas(torch.tensor(BETAS, dtype=torch.float64)))
T = len(BETAS)
STEPS = [(s, t) for t in range(1, T + 1) for s in range(t)]
VALUES = (-1, 1)
VARIANCE = FixedSmall()


def pixel(value):
    return torch.full((1, 1, 1, 1), value, dtype=torch.float64)


def coins(num, shape=(1, 4, 4), seed=0):
    """Images of fair coins, float32."""
    return Rng(seed, "test").at(0, torch.arange(num)).uniform("image", shape).sub(0.5).sign()


def transitions(s, t):
    """`[2, 2]`: the probability of x_t (column) for x_s (row) in the order of VALUES, one step after the other.

    Table App.1: x_{t-1} stays with probability 1 - beta_t + beta_t / 2.
    """
    whole = torch.eye(2, dtype=torch.float64)
    for beta in BETAS[s:t]:
        whole = whole @ torch.tensor([[1 - beta / 2, beta / 2], [beta / 2, 1 - beta / 2]], dtype=torch.float64)
    return whole


def probability(distribution, value):
    return (1 + value * distribution.mean.item()) / 2


@pytest.mark.parametrize("t", range(1, T + 1))
def test_the_marginal_is_that_of_the_chain(t):
    for i, j in itertools.product((0, 1), repeat=2):
        marginal = PROCESS.marginal(pixel(VALUES[i]), t)
        assert probability(marginal, VALUES[j]) == pytest.approx(transitions(0, t)[i, j].item(), abs=1e-12)


@pytest.mark.parametrize(("s", "t"), STEPS)
def test_the_posterior_is_bayes_rule_on_the_chain(s, t):
    """q(x_s | x_t, x0) = q(x_s | x0) q(x_t | x_s) / q(x_t | x0)."""
    for i, j in itertools.product((0, 1), repeat=2):
        joint = transitions(0, s)[i] * transitions(s, t)[:, j]
        posterior = PROCESS.posterior(pixel(VALUES[i]), pixel(VALUES[j]), s, t)
        for k in (0, 1):
            assert probability(posterior, VALUES[k]) == pytest.approx((joint[k] / joint.sum()).item(), abs=1e-12)


@pytest.mark.parametrize(("s", "t"), STEPS)
@pytest.mark.parametrize("white", [0.0, 0.2, 0.9])
def test_the_reverse_step_is_exact_where_the_prediction_is(white, s, t):
    """Pixels of which a share is white: E[x0 | x_t] by Bayes' rule in, p(x_s | x_t) by Bayes' rule out."""
    share = torch.tensor([1 - white, white], dtype=torch.float64)
    at_s = share @ transitions(0, s)
    for j in (0, 1):
        of_x0 = share * transitions(0, t)[:, j]
        mean = ((of_x0[1] - of_x0[0]) / of_x0.sum()).item()
        expected = at_s * transitions(s, t)[:, j]
        reverse = PROCESS.reverse(Prediction(pixel(mean)), pixel(VALUES[j]), s, t, VARIANCE)
        assert probability(reverse, 1) == pytest.approx((expected[1] / expected.sum()).item(), abs=1e-12)


def test_applied_noise_has_the_marginals_mean():
    """40,000 pixels at each time: the mean is known to sqrt(1 - a^2) / 200, at most 0.005."""
    x0 = coins(100, (1, 20, 20))
    z = PROCESS.draw(x0, Rng(0, "train").at(0, torch.arange(100)))
    for t in range(1, T + 1):
        x_t = PROCESS.apply(x0, z, t)
        assert x_t.abs().eq(1).all()
        kept = math.prod(1 - beta for beta in BETAS[:t])
        assert abs((x_t * x0).mean().item() - kept) < 5 * (1 - kept**2) ** 0.5 / 200


def test_the_prior_and_the_limit_are_fair_coins():
    """16,000 coins: their mean is known to 0.008."""
    x_T = PROCESS.prior((1, 4, 4), Rng(0, "sample").at(T, torch.arange(1000)))
    assert x_T.abs().eq(1).all()
    assert abs(x_T.mean().item()) < 5 * 0.008
    assert PROCESS.limit(x_T).mean.equal(torch.zeros_like(x_T))


def test_time_0_is_clean_and_nothing_changes_without_noise():
    x0 = coins(4)
    z = PROCESS.draw(x0, Rng(0, "train").at(0, torch.arange(4)))
    assert PROCESS.apply(x0, z, 0).equal(x0)
    assert PROCESS.apply(x0, torch.zeros_like(x0), 0).equal(x0)


def test_inferred_noise_leads_back_to_where_it_was_inferred_from():
    x0, x_t = coins(8), coins(8, seed=1)
    for t in range(1, T + 1):
        z = PROCESS.recover_noise(x_t, x0, t)
        assert ((z >= 0) & (z < 1)).all()
        assert PROCESS.apply(x0, z, t).equal(x_t)


def test_times_of_a_batch_give_what_single_times_give():
    x0, x_t = coins(T).double(), coins(T, seed=1).double()
    t = torch.arange(1, T + 1)
    s = t - 1
    z = PROCESS.draw(x0, Rng(0, "train").at(0, torch.arange(T)))
    together = (
        *(PROCESS.apply(x0, z, t), PROCESS.recover_noise(x_t, x0, t)),
        *(PROCESS.marginal(x0, t).mean, PROCESS.posterior(x0, x_t, s, t).mean),
    )
    for i in range(T):
        one = slice(i, i + 1)
        alone = (
            *(PROCESS.apply(x0[one], z[one], i + 1), PROCESS.recover_noise(x_t[one], x0[one], i + 1)),
            *(PROCESS.marginal(x0[one], i + 1).mean, PROCESS.posterior(x0[one], x_t[one], i, i + 1).mean),
        )
        for some, single in zip(together, alone, strict=True):
            assert_same(some[one], single)


@pytest.mark.parametrize("num_timesteps", [1, 2, 10, 1000])
def test_the_bound_of_a_fair_coin_is_one_bit(num_timesteps):
    """E[x0 | x_t] = a(t) x_t is all that can be known of x0, so the bound's terms lose nothing."""
    process = BinomialDiffusion(jsd(num_timesteps))
    x0 = pixel(1)  # the other half of the data is the mirror image
    nats = prior_term(process, x0).item()
    for t, value in itertools.product(range(1, num_timesteps + 1), VALUES):
        x_t = pixel(value)
        prediction = Prediction((1 - t / num_timesteps) * x_t)
        term = step_term(process, x0, x_t, prediction, t - 1, t, VARIANCE)
        nats += probability(process.marginal(x0, t), value) * term.item()
    assert nats / math.log(2) == pytest.approx(1, abs=1e-9)


def test_the_loss_estimates_that_bound_and_its_gradient_is_a_number():
    """4,096 images of 16 coins, a time each: three standard errors of their own mean, which is below 0.02 bits."""
    process = BinomialDiffusion(jsd(10))
    scale = torch.ones((), requires_grad=True)

    def network(x, time):
        kept = 1 - (time + 1).view(-1, 1, 1, 1) / 10
        return scale * 2 * torch.atanh(kept * x)  # the log-odds of a mean of kept * x

    draws = Rng(0, "train").at(0, torch.arange(4096))
    denoiser = NetworkDenoiser(network, Logit(process.schedule))
    total = VLBLoss(process, Uniform(), VARIANCE)(denoiser, coins(4096), {}, draws).total
    error = total.std().item() / 64
    assert error < 0.02
    assert abs(total.mean().item() - 1) < 3 * error
    total.mean().backward()
    assert torch.isfinite(scale.grad)


def test_a_chain_of_many_steps_keeps_probabilities_between_0_and_1_in_float32():
    process = BinomialDiffusion(jsd(100_000))
    x0, x_t = coins(8), coins(8, seed=1)
    for s, t in ((1, 2), (10, 11), (5, 50_000), (99_998, 99_999), (99_999, 100_000)):
        for a, b in ((x0, x0), (x0, x_t)):
            mean = process.posterior(a, b, s, t).mean
            assert mean.abs().max() <= 1
            assert torch.isfinite(process.posterior(a, b, s, t).kl(process.posterior(0.5 * a, b, s, t))).all()


def test_log_odds_stand_for_the_mean_of_a_pixel():
    white = torch.tensor([0.01, 0.3, 0.5, 0.999], dtype=torch.float64)
    mean = Logit(PROCESS.schedule).to_x0((white / (1 - white)).log(), white, 1)
    assert_same(mean, CERTAIN * (2 * white - 1))


def test_a_sure_mistake_costs_14_6_nats_and_leaves_the_gradient_a_number():
    output = torch.tensor([-1e4, -50.0, 50.0, 1e4], dtype=torch.float64, requires_grad=True)
    mean = Logit(PROCESS.schedule).to_x0(output, output, 1)
    cost = -Bernoulli(mean).log_likelihood(-output.detach().sign())
    assert_same(cost, torch.full_like(cost, 21 * math.log(2)))
    cost.sum().backward()
    assert torch.isfinite(output.grad).all()


def test_log_odds_have_no_error_of_x0_to_weigh():
    with pytest.raises(ValueError, match=r"objective=logit cannot be used with loss=simple.*use loss=vlb"):
        Logit(PROCESS.schedule).x0_error(torch.ones(1))


def test_the_binary_codec_makes_grey_pixels_black_or_white():
    grey = torch.arange(256).view(1, 1, 16, 16) / 127.5 - 1
    draws = Rng(0, "train").at(0, torch.arange(1))
    codec = BinaryCodec()
    x0 = codec.encode({"image": grey})
    assert x0.flatten().tolist() == [-1.0] * 128 + [1.0] * 128
    assert PROCESS.draw(x0, draws).shape == x0.shape
    assert codec.decode(x0).equal(x0)
    assert codec.latent_shape((1, 16, 16)) == (1, 16, 16)


def test_a_network_that_knows_the_data_samples_them():
    """Data of one image: the log-odds are those of that image, and every sample is it, in all steps and in three."""
    image = coins(1, (1, 8, 8))

    def network(x, time):
        return 40 * image.expand_as(x)

    for steps in (None, 3):
        sampler = Ancestral(BinomialDiffusion(jsd(20)), uniform, steps, FixedSmall())
        denoiser = NetworkDenoiser(network, Logit(PROCESS.schedule))
        samples = sampler.sample(denoiser, (1, 8, 8), Rng(0, "sample"), torch.arange(3))
        assert samples.equal(image.expand(3, 1, 8, 8))


def test_samples_of_independent_pixels_have_their_share_of_white():
    """The denoiser of pixels that are white with probability 0.8, by Bayes' rule; 25,600 pixels know it to 0.0025."""
    process = BinomialDiffusion(jsd(20))

    class Independent:
        def __call__(self, x_t, t, cond):
            kept = 1 - t / 20
            white, black = 0.8 * (1 + kept * x_t), 0.2 * (1 - kept * x_t)
            return Prediction((white - black) / (white + black))

    sampler = Ancestral(process, uniform, None, FixedSmall())
    rng, ids = Rng(0, "sample"), torch.arange(100)
    states = list(sampler.trajectory(Independent(), process.prior((1, 16, 16), rng.at(20, ids)), rng, ids))
    at_1 = states[-2].x_t
    assert abs(at_1.mean().item() - 0.6 * (1 - 1 / 20)) < 5 * 2 * 0.0025
    assert states[-1].x_t.equal(at_1)  # the likelier value: a pixel at t = 1 is believed


def test_samplers_for_gaussian_noise_refuse_coins():
    with pytest.raises(ValueError, match="process=gaussian"):
        DDIM(PROCESS, uniform, None, 0.0)
    DDIM(GaussianDiffusion(PROCESS.schedule), uniform, None, 0.0)
