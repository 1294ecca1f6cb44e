"""The terms of the bound, against closed forms: on Gaussian data the whole of it is the entropy."""

import math

import numpy as np
import pytest
import torch
from precision import assert_same
from torch import distributions as td

from ddpm.base.rng import Rng
from ddpm.base.types import Prediction
from ddpm.diffusion.coefficients import Coefficient
from ddpm.diffusion.denoiser import NetworkDenoiser, SelfConditioned
from ddpm.diffusion.distributions import Bernoulli, Gaussian
from ddpm.diffusion.exact.oracle import GaussianOracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.losses.bound import bits_per_dim, floored_log_mass, log_mass, prior_term, step_term
from ddpm.diffusion.losses.error import mse
from ddpm.diffusion.losses.vlb import HybridLoss, VLBLoss
from ddpm.diffusion.losses.weight import uniform
from ddpm.diffusion.objective import X0, Eps
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.schedules.curves import cosine
from ddpm.diffusion.time_sampler import LossAware, Uniform
from ddpm.diffusion.variance import FixedLarge, FixedSmall, LearnedRange

SCHEDULES = {"linear": linear(1000, 1e-4, 0.02, rescale=True), "cosine": cosine(300, 0.008, 0.999)}
IDS = torch.arange(16)


def gauss_hermite(width):
    """Points and weights for x0 ~ N(0, width^2) and eps ~ N(0, 1): exact for the bound, which is quadratic in both."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(3)
    weights = weights / weights.sum()
    x0, eps = (torch.tensor(part.ravel()).view(-1, 1, 1, 1) for part in np.meshgrid(width * nodes, nodes))
    return x0, eps, torch.tensor(np.outer(weights, weights).ravel())


class Exact:
    """The true variance of p(x_s | x_t) for data N(0, c^2): the posterior's and what is not known of x0."""

    num_outputs = 1

    def __init__(self, c):
        self.c = c

    def __call__(self, schedule, prediction, s, t) -> Coefficient:
        a_s, a_t = schedule.alpha(s) ** 2, schedule.alpha(t) ** 2
        of_x0 = math.sqrt(a_s) * (1 - a_t / a_s) / (1 - a_t)
        unknown = self.c**2 * (1 - a_t) / (a_t * self.c**2 + 1 - a_t)
        return (1 - a_t / a_s) * (1 - a_s) / (1 - a_t) + of_x0**2 * unknown


def bound(schedule, c, variance):
    """In nats, with the density in place of the 8-bit decoder, by quadrature."""
    process = GaussianDiffusion(schedule)
    denoiser = OracleDenoiser(GaussianOracle([0.0], [[c**2]]), schedule)
    x0, eps, weights = gauss_hermite(c)
    total = (weights * prior_term(process, x0).flatten()).sum().item()
    for t in range(1, schedule.T + 1):
        x_t = process.apply(x0, eps, t)
        prediction = denoiser(x_t, t, {})
        if t > 1:
            term = step_term(process, x0, x_t, prediction, t - 1, t, variance)
        else:
            model = process.reverse(prediction, x_t, 0, 1, variance)
            term = -torch.distributions.Normal(model.mean, model.variance**0.5).log_prob(x0)
        total += (weights * term.flatten()).sum().item()
    return total


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("c", [0.3, 1.0])
def test_the_whole_bound_on_gaussian_data_is_the_entropy(name, c):
    """With the true reverse variance nothing is lost, but for x_T that is not quite standard normal."""
    schedule = SCHEDULES[name]
    entropy = math.log(2 * math.pi * math.e * c**2) / 2
    total = bound(schedule, c, Exact(c))
    a = schedule.alpha_bar[-1].item()
    of_end = (a * c**2 + 1 - a - 1 - math.log(a * c**2 + 1 - a)) / 2  # KL(q(x_T) || p(x_T)), marginal
    assert total - of_end == pytest.approx(entropy, abs=1e-9)


def test_standard_normal_data_with_variance_beta_at_every_time_have_2_0471_bits():
    """DESIGN's identity: beta is then the true variance, the first included, and x_T is exactly standard normal."""
    total = bound(SCHEDULES["linear"], 1.0, FixedLarge())
    assert total == pytest.approx(math.log(2 * math.pi * math.e) / 2, abs=1e-9)
    assert total / math.log(2) == pytest.approx(2.0471, abs=5e-5)


@pytest.mark.parametrize("variance", [FixedSmall(), FixedLarge()])
def test_another_variance_only_loosens_the_bound(variance):
    assert bound(SCHEDULES["cosine"], 0.3, variance) > bound(SCHEDULES["cosine"], 0.3, Exact(0.3)) + 1e-3


def test_the_prior_term_has_its_closed_form():
    process = GaussianDiffusion(linear(100, 1e-4, 0.02, rescale=False))
    a = process.schedule.alpha_bar[-1].item()
    x0 = torch.tensor([0.0, 0.5, -1.0], dtype=torch.float64).view(3, 1, 1, 1)
    expected = (a * x0.flatten() ** 2 + (1 - a) - 1 - math.log(1 - a)) / 2 / math.log(2)
    assert torch.allclose(bits_per_dim(prior_term(process, x0)), expected, rtol=1e-9)
    ones = bits_per_dim(prior_term(process, torch.ones(1, 1, 1, 1).double())).item()
    assert ones == pytest.approx(0.326, abs=5e-4)  # what T = 100 without rescaling leaves of data of power 1


def test_the_divergence_of_gaussians_is_that_of_torch():
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(5, 1, 2, 2, generator=generator, dtype=torch.float64) for _ in range(2))
    found = Gaussian(one, 0.3).kl(Gaussian(other, torch.linspace(0.1, 2, 5, dtype=torch.float64)))
    theirs = torch.linspace(0.1, 2, 5, dtype=torch.float64).view(5, 1, 1, 1).sqrt().expand_as(other)
    expected = td.kl_divergence(td.Normal(one, math.sqrt(0.3)), td.Normal(other, theirs))
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.equal(Gaussian(one, 0.3).kl(Gaussian(one, 0.3)), torch.zeros_like(one))
    coins = Bernoulli(one.tanh()).kl(Bernoulli(other.tanh()))
    theirs = td.kl_divergence(*(td.Bernoulli((1 + m.tanh()) / 2) for m in (one, other)))
    assert torch.allclose(coins, theirs, rtol=1e-9)


@pytest.mark.parametrize("variance", [1e-4, 0.01, 1.0, 100.0])
@pytest.mark.parametrize("mean", [-1.3, 0.0, 0.42, 1.0])
def test_the_256_bins_of_the_decoder_sum_to_one(mean, variance):
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(256, 1, 1, 1)
    mass = Gaussian(torch.full_like(levels, mean), variance).log_likelihood(levels).exp().flatten()
    assert mass.sum().item() == pytest.approx(1, abs=1e-9)
    normal = td.Normal(torch.tensor(mean, dtype=torch.float64), math.sqrt(variance))
    edges = torch.cat(
        [torch.tensor([-math.inf]), (torch.arange(255).double() + 0.5) / 127.5 - 1, torch.tensor([math.inf])]
    )
    expected = normal.cdf(edges.double()).diff()
    assert torch.allclose(mass, expected, rtol=1e-10, atol=1e-15)  # of the far tails torch's CDF knows nothing


def test_the_decoder_stays_finite_far_out_and_has_a_gradient():
    mean = torch.full((1, 1, 1, 2), 1.0).requires_grad_()
    x0 = torch.tensor([-1.0, -0.5]).view(1, 1, 1, 2)
    found = Gaussian(mean, 1e-4).log_likelihood(x0)
    found.sum().backward()
    assert torch.isfinite(found).all()
    distance = torch.tensor([2 - 1 / 255, 1.5 - 1 / 255]).view(1, 1, 1, 2)
    assert torch.allclose(found, -(distance**2) / 2e-4, rtol=1e-2)
    assert torch.allclose(mean.grad, -distance / 1e-4, rtol=2e-2)


class Answer(torch.nn.Module):
    """A network with a learned variance: tanh of an affine map, so that each channel has a gradient of its own."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = torch.nn.Parameter(torch.randn(2, generator=generator).double() / 2)

    def forward(self, x, time):
        return torch.cat([(x * self.weight[0]).tanh(), (x * self.weight[1]).tanh()], dim=1)


def images():
    levels = torch.randint(0, 256, (16, 1, 4, 4), generator=torch.Generator().manual_seed(0))
    return levels.double() / 127.5 - 1


def test_the_learned_range_goes_from_small_to_large_on_a_logarithmic_scale():
    """Nichol and Dhariwal 2021, eq. 15; at the first time their clipped table, beta tilde of the second step."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.r_[1, np.cumprod(1 - betas)]
    tilde = betas * (1 - bar[:-1]) / (1 - bar[1:])
    tilde[0] = tilde[1]
    schedule, image = SCHEDULES["linear"], torch.zeros(3, 1, 1, 1).double()
    for t in (1, 2, 500, 1000):
        extra = torch.tensor([-1.0, 1.0, 0.0]).double().view(3, 1, 1, 1)
        low, high, middle = LearnedRange()(schedule, Prediction(image, extra), t - 1, t).flatten().tolist()
        assert low == pytest.approx(tilde[t - 1], rel=1e-9)
        assert high == pytest.approx(betas[t - 1], rel=1e-9)
        assert middle == pytest.approx(math.sqrt(low * high), rel=1e-9)
    times = torch.tensor([1, 2, 1000])
    of_batch = LearnedRange()(schedule, Prediction(image, -torch.ones_like(image)), times - 1, times)
    assert of_batch.flatten().tolist() == pytest.approx(tilde[[0, 1, 999]].tolist(), rel=1e-9)
    with pytest.raises(ValueError, match=r"variance=learned_range needs a network with model\.out_channels=2"):
        LearnedRange()(schedule, Prediction(image), 1, 2)


def test_each_term_of_the_loss_is_the_divergence_of_torch_and_the_first_the_decoders():
    process, x0 = GaussianDiffusion(SCHEDULES["linear"]), images()
    t = torch.tensor([1, 2, 500, 1000] * 4)
    x_t = process.apply(x0, Rng(0, "x").at(0, IDS).normal("z", (1, 4, 4)).double(), t)
    prediction = NetworkDenoiser(Answer(), X0(process.schedule))(x_t, t, {})
    together = step_term(process, x0, x_t, prediction, t - 1, t, LearnedRange())
    for k, time in enumerate(t.tolist()):
        one = Prediction(prediction.x0[k : k + 1], prediction.extra[k : k + 1])
        alone = step_term(process, x0[k : k + 1], x_t[k : k + 1], one, time - 1, time, LearnedRange())
        assert_same(together[k : k + 1], alone)
        model = process.reverse(one, x_t[k : k + 1], time - 1, time, LearnedRange())
        if time > 1:
            mean, variance, _ = process.posterior(x0[k : k + 1], x_t[k : k + 1], time - 1, time)
            true = td.Normal(mean, math.sqrt(variance))
            assert_same(alone, td.kl_divergence(true, td.Normal(model.mean, model.variance.sqrt())))


def gradients(loss, denoiser, network, draws):
    network.weight.grad = None
    terms = loss(denoiser, images(), {}, draws)
    terms.total.mean().backward()
    return terms, network.weight.grad.clone()


def test_in_the_hybrid_loss_the_bound_trains_the_variance_alone():
    """Its gradient is that of L_simple in the mean's part, and of lambda times the bound in the variance's."""
    process, network = GaussianDiffusion(SCHEDULES["linear"]), Answer()
    denoiser, draws = NetworkDenoiser(network, Eps(process.schedule)), Rng(0, "train").at(0, IDS, IDS)
    hybrid = HybridLoss(process, Uniform(), uniform, mse, LearnedRange(), 0.001)
    terms, of_hybrid = gradients(hybrid, denoiser, network, draws)
    of_bound, bound_gradient = gradients(VLBLoss(process, Uniform(), LearnedRange()), denoiser, network, draws)
    assert_same(terms.parts["bits"], of_bound.total)
    assert_same(terms.total, terms.parts["error"] + 0.001 * terms.parts["bits"])
    network.weight.grad = None
    x_t = process.apply(images(), process.draw(images(), draws), terms.t)
    mse(network(x_t, terms.t - 1)[:, :1], process.draw(images(), draws)).mean().backward()
    assert_same(of_hybrid, torch.stack([network.weight.grad[0], 0.001 * bound_gradient[1]]))
    assert torch.isfinite(bound_gradient).all()
    assert (bound_gradient != 0).all()


def test_the_hybrid_loss_refuses_a_variance_that_is_not_trained():
    process = GaussianDiffusion(SCHEDULES["linear"])
    denoiser, draws = NetworkDenoiser(Answer(), X0(process.schedule)), Rng(0, "train").at(0, IDS, IDS)
    with pytest.raises(ValueError, match=r"model\.out_channels must be 2, with variance=learned_range"):
        HybridLoss(process, Uniform(), uniform, mse, FixedSmall(), 0.001)(denoiser, images(), {}, draws)


# Loss-aware times


def aware(T=4, n=3, share=0.001):
    return LossAware(linear(T, 1e-4, 0.02, rescale=False), n, share).train()


def test_times_are_uniform_until_every_one_has_been_seen_often_enough():
    times = aware()
    assert times.probabilities().tolist() == [0.25] * 4
    times.observe(torch.tensor([1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4]), torch.ones(11))
    assert times.probabilities().tolist() == [0.25] * 4
    times.observe(torch.tensor([4]), torch.tensor([5.0]))
    assert times.probabilities()[3] > 0.25


def test_the_probability_of_a_time_is_the_root_of_its_mean_squared_loss():
    """Nichol and Dhariwal 2021, eq. 18, with a thousandth uniform; the oldest of four losses is forgotten."""
    times = aware()
    losses = {1: [9.0, 1, 2, 3], 2: [9.0, 4, 4, 4], 3: [9.0, 1, 1, 1], 4: [9.0, 0, 0, 6]}
    for k in range(4):
        times.observe(torch.tensor([1, 2, 3, 4]), torch.tensor([losses[t][k] for t in (1, 2, 3, 4)]))
    roots = np.array([np.sqrt(np.mean(np.square(losses[t][1:]))) for t in (1, 2, 3, 4)])
    expected = 0.999 * roots / roots.sum() + 0.001 / 4
    assert times.probabilities().tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_loss_aware_times_estimate_the_same_mean():
    """The weights make sum p(t) w(t) L(t) the mean of L exactly; and the times come with the probabilities p."""
    times = aware(T=5)
    losses = torch.tensor([10.0, 3, 1, 0.5, 0.125])
    for _ in range(3):
        times.observe(torch.arange(1, 6), losses)
    p = times.probabilities()
    assert p.sum().item() == pytest.approx(1, rel=1e-12)
    weights = times.importance(torch.arange(1, 6), 5)
    assert (p * weights * losses).sum().item() == pytest.approx(losses.double().mean().item(), rel=1e-12)
    t = times(Rng(0, "train").at(0, torch.arange(40_000)), 5)
    share = torch.bincount(t, minlength=6)[1:] / 40_000
    assert torch.allclose(share.double(), p, rtol=0, atol=4 * math.sqrt(0.25 / 40_000))


def test_many_losses_of_one_time_at_once_keep_the_last_and_their_order_counts_alone():
    one, other = aware(), aware()
    t = torch.tensor([2, 2, 1, 2, 2, 4, 2])
    loss = torch.arange(7.0)
    one.observe(t, loss)
    for k in range(7):
        other.observe(t[k : k + 1], loss[k : k + 1])
    assert torch.equal(one.losses, other.losses)
    assert torch.equal(one.num_seen, other.num_seen)
    assert sorted(one.losses[1].tolist()) == [3.0, 4.0, 6.0]


def test_outside_of_training_times_are_uniform_so_that_validations_are_alike():
    times = aware().eval()
    for _ in range(3):
        times.observe(torch.arange(1, 5), torch.tensor([100.0, 1, 1, 1]))
    draws = Rng(0, "val").at(0, torch.arange(1000))
    assert torch.equal(times(draws, 4), Uniform()(draws, 4))
    assert times.importance(torch.arange(1, 5), 4) is None


# Self-conditioning


def test_a_self_conditioned_network_is_told_its_own_answer_half_of_the_time_without_its_gradient():
    """n = 400 samples: the share within four standard errors of a half."""
    told = []

    class Network(torch.nn.Module):
        self_condition = True

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor(0.5, dtype=torch.float64))

        def forward(self, x, time, x0_guess=None):
            told.append((x0_guess, torch.is_grad_enabled()))
            return self.weight * x if x0_guess is None else self.weight * x + x0_guess

    network, schedule = Network(), SCHEDULES["linear"]
    draws = Rng(0, "train").at(0, torch.arange(400))
    x = draws.normal("x", (1, 2, 2)).double()
    SelfConditioned(network, X0(schedule), draws).raw(x, torch.full((400,), 5), {}).sum().backward()
    (nothing, first_grad), (guess, second_grad) = told
    assert nothing is None
    assert (first_grad, second_grad) == (False, True)
    has_guess = (guess != 0).flatten(1).any(1)
    assert torch.equal(guess[has_guess], 0.5 * x[has_guess])
    assert abs(has_guess.double().mean() - 0.5) < 4 * 0.5 / 20
    assert network.weight.grad.item() == pytest.approx(x.sum().item(), rel=1e-10)


# The floor


def log_mass_of_openai(x, mean, std):
    """discretized_gaussian_log_likelihood of guided-diffusion, with the exact distribution function."""
    upper, lower = (td.Normal(0.0, 1.0).cdf((x - mean + sign / 255) / std) for sign in (1, -1))
    inner = (upper - lower).clamp(min=1e-12).log()
    last = torch.where(x > 0.999, (1 - lower).clamp(min=1e-12).log(), inner)
    return torch.where(x < -0.999, upper.clamp(min=1e-12).log(), last)


def test_the_floor_is_that_of_openai():
    levels = (torch.arange(256, dtype=torch.float64) / 127.5 - 1).view(1, 1, 16, 16)
    mean = torch.tensor([-1.3, -0.2, 0.9, 40.0], dtype=torch.float64).view(4, 1, 1, 1).expand(4, 1, 16, 16)
    x0 = levels.expand_as(mean)
    found = floored_log_mass(1e-12)(Gaussian(mean, 0.05**2), x0)
    assert (found == math.log(1e-12)).any()
    torch.testing.assert_close(found, log_mass_of_openai(x0, mean, 0.05), rtol=0, atol=1e-4)  # theirs cancels: 1 - cdf
    likely = found > math.log(1e-12)
    assert torch.equal(found[likely], log_mass(Gaussian(mean, 0.05**2), x0)[likely])


def test_a_bad_network_costs_at_most_the_floor_with_finite_gradients():
    x0 = torch.zeros(2, 1, 4, 4)
    for distance in (1.0, 1e4, 1e30):
        mean = torch.full_like(x0, distance).requires_grad_()
        variance = torch.tensor([1e-8, 1e-4]).requires_grad_()
        nats = floored_log_mass(1e-12)(Gaussian(mean, variance), x0)
        assert bits_per_dim(-nats).tolist() == pytest.approx([math.log2(1e12)] * 2)
        gradients = torch.autograd.grad(nats.sum(), [mean, variance])
        assert all((gradient == 0).all() for gradient in gradients)
    nan = floored_log_mass(1e-12)(Gaussian(torch.full_like(x0, math.nan), 1.0), x0)
    assert nan.isnan().all()  # an alarm about the loss must see it


@pytest.mark.parametrize("floor", [0, 1, "low"])
def test_a_floor_that_is_no_probability_is_refused(floor):
    with pytest.raises(ValueError, match="floor must be"):
        VLBLoss(GaussianDiffusion(SCHEDULES["linear"]), Uniform(), FixedSmall(), floor)


def test_a_training_uses_the_floor(small):
    from ddpm.config import build

    for name, others in (("vlb", []), ("hybrid", ["variance=learned_range"])):
        assert build.module(small(f"loss={name}", *others)).loss.floor == 1e-12
