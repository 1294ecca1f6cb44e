"""Likelihoods and orders of convergence, against closed forms and computations of their own."""

import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from densities import log_density
from precision import roundings
from small_runs import csv_rows
from torch import distributions as td

from ddpm.base.rng import Rng
from ddpm.commands import evaluate, sample
from ddpm.config import analytic, build, load
from ddpm.diffusion.binomial import BinomialDiffusion
from ddpm.diffusion.exact.affine import output_distribution
from ddpm.diffusion.exact.ode_likelihood import log_likelihood
from ddpm.diffusion.exact.oracle import GaussianOracle, MixtureOracle, OracleDenoiser
from ddpm.diffusion.gaussian import GaussianDiffusion
from ddpm.diffusion.samplers.ancestral import Ancestral
from ddpm.diffusion.samplers.timestep_spacing import log_snr, uniform
from ddpm.diffusion.schedules.betas import linear
from ddpm.diffusion.variance import Analytic
from ddpm.evaluation.model_metrics.bound import bound_terms
from ddpm.evaluation.model_metrics.images import Split
from ddpm.evaluation.model_metrics.nll import NegativeLogLikelihood
from ddpm.evaluation.model_metrics.rate_distortion import rate_distortion_curve
from ddpm.evaluation.model_metrics.sampler_error import Convergence, exact_flow
from ddpm.metrics.protocol import read_result

FINE = linear(100_000, 1e-4, 0.02, rescale=True)
GAUSSIAN = GaussianOracle([0.3, -0.2], [[0.25, 0.1], [0.1, 0.16]])
MIXTURE = MixtureOracle([[-0.6, 0.1], [0.3, 0.5], [0.1, -0.7]], 0.2)
POINTS = torch.tensor([[0.2, -0.1], [-0.5, 0.3], [0.9, 0.4], [0.1, -0.6]], dtype=torch.float64).view(4, 1, 1, 2)


@pytest.mark.parametrize("oracle", [GAUSSIAN, MIXTURE], ids=["gaussian", "mixture"])
def test_the_likelihood_by_the_ode_is_the_exact_log_density(oracle):
    """To 1e-3, from time 1, where sigma is 1e-3. With as many probes as dimensions the divergence is exact.

    alpha is 4e-5 at the end: with the paper's 0.006 the data's mean still shows in x_T, and p(x_T) misses 0.004 nats.
    """
    schedule = linear(100_000, 1e-4, 0.04, rescale=True)
    process, denoiser = GaussianDiffusion(schedule), OracleDenoiser(oracle, schedule)
    times = log_snr(schedule.T, 800, schedule)[-2::-1]
    assert (times[0], times[-1]) == (1, schedule.T)
    probes = math.sqrt(2) * torch.eye(2, dtype=torch.float64).view(2, 1, 1, 1, 2).expand(2, 4, 1, 1, 2)
    found = log_likelihood(process, denoiser, POINTS, times, probes)
    exact = log_density(oracle, POINTS * schedule.alpha(1), schedule.alpha(1), schedule.sigma(1))
    assert torch.allclose(found, exact, rtol=0, atol=1e-3)


def test_probes_of_signs_estimate_the_divergence_without_bias():
    """n = 400 pairs of signs, of which there are four: within four standard errors."""
    process, denoiser = GaussianDiffusion(FINE), OracleDenoiser(GAUSSIAN, FINE)
    times = log_snr(FINE.T, 40, FINE)[-2::-1]
    y = POINTS[:1].expand(400, 1, 1, 2)
    exact = log_likelihood(
        process, denoiser, y[:1], times, math.sqrt(2) * torch.eye(2, dtype=torch.float64).view(2, 1, 1, 1, 2)
    )
    signs = Rng(0, "probes").at(0, torch.arange(400)).normal("sign", (1, 1, 2)).sign().double()[None]
    found = log_likelihood(process, denoiser, y, times, signs)
    assert abs(found.mean() - exact.item()) < 4 * found.std() / 20 + 1e-9


def test_the_exact_flow_is_the_closed_form():
    x, T = torch.randn(5, 1, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), FINE.T
    found = exact_flow(GAUSSIAN, FINE, x, T, 1)
    assert torch.allclose(found, GAUSSIAN.flow(x, T, 1, FINE), rtol=0, atol=1e-8)


def test_the_reference_flow_of_a_line_keeps_every_quantile():
    """In one dimension the flow is monotone and keeps the distribution: that fixes it, for a mixture too."""
    oracle = MixtureOracle([[-0.6], [0.5]], 0.2)
    x = torch.tensor([-1.2, -0.1, 0.7], dtype=torch.float64).view(3, 1, 1, 1)
    a, s = FINE.alpha(FINE.T), FINE.sigma(FINE.T)

    def cdf(y, alpha, sigma):
        std = math.sqrt(alpha**2 * 0.04 + sigma**2)
        return sum(0.5 * td.Normal(alpha * c, std).cdf(y) for c in (-0.6, 0.5))

    y = exact_flow(oracle, FINE, x, FINE.T, 1)
    torch.testing.assert_close(cdf(y, FINE.alpha(1), FINE.sigma(1)), cdf(x, a, s), rtol=0, atol=1e-6)


def test_the_fitted_order_leaves_out_what_is_chance():
    errors = [1e-1, 2.5e-2, 6.25e-3, 1e-3]
    assert Convergence("x", "path", 2, (10, 20, 40, 80), (*errors[:3], 1.5625e-3), 0.0).fitted == pytest.approx(2)
    assert Convergence("x", "samples", 2, (10, 20, 40, 80), tuple(errors), 1e-3).fitted == pytest.approx(2)
    assert Convergence("x", "samples", 2, (10, 20, 40), (1e-3, 1e-3, 1e-3), 1e-3).fitted is None


def test_rate_and_distortion_are_what_the_receiver_knows_step_by_step():
    """Terms 8 for L_3, then L_2 = 4, L_1 = 2, L_0 = 1: before x_3 is known nothing but L_3 is paid."""
    rate, distortion = rate_distortion_curve(torch.tensor([8.0, 1.0, 2.0, 4.0]), torch.tensor([0.0, 0.01, 0.04, 0.09]))
    assert rate.tolist() == [8, 12, 14]
    assert distortion.tolist() == pytest.approx([0.3 * 127.5, 0.2 * 127.5, 0.1 * 127.5])


# The analytic variance


def test_the_analytic_variance_of_gaussian_data_is_the_true_one_so_any_number_of_steps_is_exact():
    """p(x_s | x_t) is then N(mean, that variance): the distribution before the last step has no error at all."""
    schedule, c = linear(1000, 1e-4, 0.02, rescale=True), 0.5
    unknown = [c**2 * schedule.sigma(t) ** 2 / (schedule.alpha(t) ** 2 * c**2 + schedule.sigma(t) ** 2) for t in T1000]
    variance = Analytic(1, 1000, T1000, unknown)
    oracle = GaussianOracle([0.2], [[c**2]])
    for steps in (2, 5, 20):
        sampler = Ancestral(GaussianDiffusion(schedule), uniform, steps, variance)
        found = output_distribution(sampler, OracleDenoiser(oracle, schedule), (1, 1, 1))
        t = sampler.times(1000)[-2]  # from here one step without noise, to E[x0 | x_t]
        var_t = schedule.alpha(t) ** 2 * c**2 + schedule.sigma(t) ** 2
        gain = schedule.alpha(t) * c**2 / var_t
        assert found.covariance.item() == pytest.approx(gain**2 * var_t, rel=1e-3)  # x_T is nearly the data's


T1000 = list(range(1, 1001))


def test_between_measured_times_the_error_is_on_a_logarithmic_scale():
    variance = Analytic(1, 3, (1, 11, 1000), (0.01, 0.04, 1.0))
    assert variance.error(1) == 0.01
    assert variance.error(6) == pytest.approx(0.02)
    assert variance.error(1000) == 1.0
    assert variance.error(torch.tensor([1, 6])).tolist() == pytest.approx([0.01, 0.02])
    assert Analytic(1, 30).measured_times(1000)[0] == 1
    assert Analytic(1, 30).measured_times(1000)[-1] == 1000
    with pytest.raises(ValueError, match="variance=analytic is estimated from a trained model"):
        Analytic(1, 30).error(5)


# On a trained model


@pytest.fixture
def checkpoint(copied):
    """Of a network of 12 times with a learned variance."""
    words = ("schedule.num_timesteps=12", "variance=learned_range", "loss=hybrid", "objective=eps")
    return copied(*words) / "checkpoints" / "last.ckpt"


@pytest.fixture
def terms(config, checkpoint):
    """`terms(6, 3)`: those of the bound of 6 images in batches of 3, and the model."""
    settings = config("evaluate", f"ckpt={checkpoint}", "trainer=cpu")
    model, stored = load.from_checkpoint(checkpoint, load.changes(settings))
    data, trainer = build.data(stored), build.trainer(settings)
    return lambda num, size: (bound_terms(model, Split(data, "train", num, size), trainer), model, data)


@pytest.fixture
def measured(config, checkpoint, tmp_path):
    """`measured("metric=nll")`: the values of a command, and its folder."""

    def run(*overrides):
        evaluate.run_evaluate(config("evaluate", f"ckpt={checkpoint}", "trainer=cpu", f"out={tmp_path}", *overrides))
        (path,) = tmp_path.glob("*.json")
        return read_result(path), tmp_path

    return run


def test_bits_beside_the_published_code_have_its_first_variance_and_its_floor_by_name(config, checkpoint, measured):
    """Its fixedlarge differs in the decoder alone, which has the small variance."""
    found = {}
    for name in ("large", "large_published"):
        settings = config("evaluate", f"ckpt={checkpoint}", "trainer=cpu", f"variance={name}")
        model, stored = load.from_checkpoint(checkpoint, load.changes(settings))
        images = Split(build.data(stored), "train", 6, 3)
        found[name] = bound_terms(model, images, build.trainer(settings)).means
    ours, theirs = found["large"]["large"], found["large_published"]["large"]
    assert torch.equal(theirs[1], found["large"]["small"][1])
    assert theirs[1] != ours[1]
    assert torch.equal(torch.cat([theirs[:1], theirs[2:]]), torch.cat([ours[:1], ours[2:]]))
    words = ("metric.nll.num_images=6", "variance=large_published", "metric.nll.floor=1e-12")
    result, _ = measured("metric=nll", *words)
    assert "large=PublishedFixedLarge, floor=1e-12" in str(result.protocol)
    assert result.metrics["nll_large_6"] == pytest.approx(theirs.sum().item(), rel=roundings(100))  # nothing so rare


def test_the_bound_is_the_sum_of_terms_that_another_program_computes(terms):
    """In numpy and torch.distributions, from the network's output to bits, for the first three images.

    The network is float32, so batches of 2 and 3 differ by some hundred roundings at most.
    """
    found, module, data = terms(3, 2)
    alpha_bar = module.sampler.process.schedule.alpha_bar.numpy()
    indices = data.split("train", 3).indices
    pixels = next(iter(data.split("train", 3).pixels.reader(False).read([indices])))
    x0, network = pixels.float() / 127.5 - 1, module.weights("ema").eval()
    total = {"small": 0.0, "large": 0.0, "learned": 0.0}
    for t in range(1, 13):
        eps = Rng(0, "bound").at(t, indices).normal("noise", (1, 8, 8))
        a, b = alpha_bar[t], alpha_bar[t - 1]
        x_t = math.sqrt(a) * x0 + math.sqrt(1 - a) * eps
        with torch.no_grad():
            output = network(x_t, torch.full((3,), t - 1))
        guess = ((x_t - math.sqrt(1 - a) * output[:, :1]) / math.sqrt(a)).clamp(-1, 1).double()
        beta = 1 - a / b
        tilde = beta * (1 - b) / (1 - a)
        first = (1 - alpha_bar[2] / alpha_bar[1]) * (1 - alpha_bar[1]) / (1 - alpha_bar[2])
        small = tilde if t > 1 else first
        place = (output[:, 1:].double() + 1) / 2
        learned = (place * math.log(beta) + (1 - place) * math.log(small)).exp()
        of_x0, of_x_t = math.sqrt(b) * beta / (1 - a), math.sqrt(1 - beta) * (1 - b) / (1 - a)
        for name, variance in {"small": torch.tensor(small), "large": torch.tensor(beta), "learned": learned}.items():
            model = td.Normal(of_x0 * guess + of_x_t * x_t.double(), variance.double().sqrt())
            if t > 1:
                true = td.Normal(of_x0 * x0.double() + of_x_t * x_t.double(), math.sqrt(tilde))
                nats = td.kl_divergence(true, model)
            else:
                upper, lower = model.cdf(x0.double() + 1 / 255), model.cdf(x0.double() - 1 / 255)
                upper, lower = torch.where(x0 > 0.999, 1.0, upper), torch.where(x0 < -0.999, 0.0, lower)
                nats = -(upper - lower).log()
            total[name] += nats.mean().item() / math.log(2)
    a = alpha_bar[12]
    prior = td.kl_divergence(td.Normal(math.sqrt(a) * x0.double(), math.sqrt(1 - a)), td.Normal(0.0, 1.0))
    for name, value in total.items():
        assert found.total(name)[0] == pytest.approx(value + prior.mean().item() / math.log(2), rel=roundings(100))
    at_one = (guess_at_one(module, x0, indices) - x0).square().mean().item()
    assert found.distortion[1].item() == pytest.approx(at_one, rel=roundings(100))


def guess_at_one(module, x0, indices):
    process = module.sampler.process
    x_t = process.apply(x0, Rng(0, "bound").at(1, indices).normal("noise", (1, 8, 8)), 1)
    with torch.no_grad():
        return module.denoiser("ema")(x_t, 1, {}).x0


def test_the_optimal_variance_is_better_at_every_step_than_any_multiple_of_it(terms):
    found, module, _ = terms(12, 5)
    for name in ("small", "large"):
        assert (found.means["optimal"][2:] <= found.means[name][2:] + 1e-12).all()
        assert found.means["optimal"][1] <= found.means[name][1] + 0.02  # the decoder's is one of 41 that were tried
    schedule = module.sampler.process.schedule
    for t in (2, 7, 12):
        posterior = schedule.posterior_variance(t - 1, t)
        scale = (schedule.alpha(t - 1) * schedule.beta(t - 1, t) / schedule.sigma(t) ** 2) ** 2
        total = posterior + scale * found.distortion[t].item()
        tried = total * np.exp(np.linspace(-1, 1, 41))
        values = (np.log(tried / posterior) + total / tried - 1) / 2 / math.log(2)
        assert values.argmin() == 20
        assert found.means["optimal"][t].item() == pytest.approx(values[20], rel=1e-9)


def test_metric_nll_prints_stores_and_draws_every_term(measured, config, checkpoint, capsys):
    result, folder = measured("metric=nll", "metric.nll.num_images=6")
    kinds = ("small", "large", "learned", "optimal")
    assert set(result.metrics) == {f"{name}_{kind}_6" for name in ("nll", "gain") for kind in kinds}
    prior_only = {round(result.metrics[f"nll_{kind}_6"] + result.metrics[f"gain_{kind}_6"], 9) for kind in kinds}
    assert len(prior_only) == 1  # whatever the variance: the images under N(0, 1), bin by bin
    data = build.data(load.from_checkpoint(checkpoint, load.changes(config("evaluate")))[1]).split("train", 6)
    levels = torch.arange(256).double() / 127.5 - 1
    upper, lower = td.Normal(0.0, 1.0).cdf(levels + 1 / 255), td.Normal(0.0, 1.0).cdf(levels - 1 / 255)
    upper[-1], lower[0] = 1, 0
    bits = -torch.log2(upper - lower)[next(iter(data.pixels.reader(False).read([data.indices]))).long()]
    assert prior_only.pop() == pytest.approx(bits.mean().item(), rel=roundings(10))  # the images are float32
    assert all(error > 0 for error in result.errors.values())
    printed = capsys.readouterr().out
    assert "L_T, the prior" in printed
    (table,) = folder.glob("*nll*.csv")
    rows = csv_rows(table)  # numbers of 8 digits
    assert [row["term"] for row in rows] == ["L_12", *(f"L_{t}" for t in range(11, -1, -1))]
    for name in ("small", "large", "learned", "optimal"):
        assert sum(float(row[name]) for row in rows) == pytest.approx(result.metrics[f"nll_{name}_6"], rel=1e-7)
    assert next(folder.glob("*nll*.png")).stat().st_size > 10_000


def test_the_terms_do_not_depend_on_the_batch_size(terms):
    one, other = (terms(7, size)[0] for size in (7, 3))
    for name in one.means:
        assert torch.allclose(one.means[name], other.means[name], rtol=roundings(100))  # of the network
        assert one.total(name) == pytest.approx(other.total(name), rel=roundings(100))


def test_metric_rate_distortion_ends_where_the_bound_does(measured):
    result, folder = measured("metric=rate_distortion", "metric.rate_distortion.num_images=6")
    rows = csv_rows(next(folder.glob("*rate_distortion*.csv")))
    rates = [float(row["rate_bits_per_dim"]) for row in rows]
    assert [int(row["t"]) for row in rows] == list(range(12, 0, -1))
    assert rates == sorted(rates)
    assert rates[-1] == pytest.approx(result.metrics["rate_6"], rel=1e-7)  # written with 8 digits
    assert float(rows[-1]["rmse_of_255"]) == pytest.approx(result.metrics["rmse_6"], rel=1e-7)


def test_metric_nll_ode_is_finite_and_keyed_by_the_image(measured):
    result, _ = measured("metric=nll_ode", "metric.nll_ode.num_images=4", "metric.nll_ode.steps=6", "batch_size=3")
    assert math.isfinite(result.metrics["nll_ode_4"])
    assert result.errors["nll_ode_4"] > 0


def test_an_analytic_variance_is_estimated_once_and_kept_beside_the_checkpoint(config, checkpoint, monkeypatch, capsys):
    settings = config(
        "sample", f"ckpt={checkpoint}", "trainer=cpu", "sampler=ancestral", "variance=analytic", "sampler.steps=4"
    )

    def prepared():
        module, stored = load.from_checkpoint(checkpoint, load.changes(settings))
        module.use_for_prediction("best", 0)
        analytic.prepare(module, stored, checkpoint, build.trainer(settings))
        return module

    module = prepared()
    assert "variance=analytic: the estimate is stored" in capsys.readouterr().out
    (file,) = (checkpoint.parents[1] / "analytic").glob("*.json")
    stored = json.loads(file.read_text())
    monkeypatch.setattr(analytic, "measure_errors", None)  # would fail if it were asked again
    again = prepared()
    monkeypatch.undo()
    file.write_text(file.read_text().replace(str(stored["errors"][0]), "0.5"))
    assert list(prepared().sampler.variance.errors) == stored["errors"], "what is damaged is estimated again"
    assert module.sampler.describe() == again.sampler.describe()
    assert list(again.sampler.variance.errors) == stored["errors"]
    assert torch.isfinite(again.generate(torch.arange(2), "ema")).all()
    data = build.data(load.from_checkpoint(checkpoint, load.changes(settings))[1])
    images = data.split("train", 256)
    pixels = next(iter(images.pixels.reader(False).read([images.indices])))
    x0 = pixels.float() / 127.5 - 1
    t = stored["times"][3]
    x_t = module.sampler.process.apply(x0, Rng(0, "analytic").at(t, images.indices).normal("noise", (1, 8, 8)), t)
    with torch.no_grad():
        expected = (module.denoiser("ema")(x_t, t, {}).x0.double() - x0).square().mean().item()
    assert stored["errors"][3] == pytest.approx(expected, rel=roundings(100))  # of the network, in other batches


def test_sample_py_takes_the_analytic_variance_too(config, checkpoint, tmp_path):
    words = (
        f"ckpt={checkpoint}",
        "trainer=cpu",
        "sampler=ancestral",
        "variance=analytic",
        "sampler.steps=3",
        "variance.num_times=5",
    )
    sample.run_sample(config("sample", *words, "num_samples=4", f"out={tmp_path / 'samples'}"))
    assert (tmp_path / "samples" / "grid.png").exists()


# Samplers beside an oracle


def test_sampler_error_finds_the_stated_orders_and_needs_no_checkpoint(config, tmp_path, capsys):
    settings = ("model=oracle_mixture", "metric=sampler_error", "metric.sampler_error.steps=[40,80,160]")
    left_out = [
        f"~metric.sampler_error.samplers.{name}" for name in ("ancestral", "langevin", "sde_dpm_solver", "pndm")
    ]
    evaluate.run_evaluate(
        config("evaluate", *settings, *left_out, f"out={tmp_path}", "~metric.sampler_error.samplers.ddim_eta_1")
    )
    (path,) = tmp_path.glob("*.json")
    orders = {name: value for name, value in read_result(path).metrics.items() if name.startswith("order_")}
    for name, order in {"ddim": 1, "euler": 1, "heun": 2, "dpm_solver": 2, "unipc": 3}.items():
        assert orders[f"order_{name}"] == pytest.approx(order, abs=0.25)
    assert orders["order_dpm_solver_3m"] > 2.75  # from above, as the steps get shorter
    assert "from the exact flow" in capsys.readouterr().out
    assert next(tmp_path.glob("*.png")).stat().st_size > 10_000


def test_a_floor_that_the_process_does_not_read_is_refused():
    sampler = SimpleNamespace(process=BinomialDiffusion(linear(4, 0.1, 0.2, rescale=False)))
    run = SimpleNamespace(model=SimpleNamespace(codec=SimpleNamespace(bounded=True), sampler=sampler))
    with pytest.raises(ValueError, match="floor must be null, because the process BinomialDiffusion does not read it"):
        NegativeLogLikelihood(num_images=2, split="train", batch_size=2, floor=1e-9).measure(run)
