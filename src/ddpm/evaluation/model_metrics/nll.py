"""metric=nll: the variational bound on -log p(x0) in bits per dimension, with all its terms (Ho et al. 2020, eq. 5)."""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from ddpm.base import check
from ddpm.base.plots import set_apart
from ddpm.diffusion.losses.bound import likelihood_of
from ddpm.diffusion.variance import FixedLarge
from ddpm.evaluation.curves import legend_above, look
from ddpm.evaluation.model_metric import Measurement, ModelRun
from ddpm.evaluation.model_metrics.bound import Terms, bound_terms, large_variance
from ddpm.evaluation.model_metrics.images import OfLikelihood


@dataclass(frozen=True)
class NegativeLogLikelihood(OfLikelihood):
    """Uses one draw of noise for each image and time.

    It compares the fixed variances, the learned one if there is one, and the optimal one that depends only on time.
    floor: of the decoder's probabilities (see `floored_log_mass`); None: none.
    """

    floor: float | None = None

    def measure(self, run: ModelRun) -> Measurement:
        likelihood_of(self.floor)
        if self.floor is not None and not run.model.codec.bounded:
            check.fail("floor", self.floor, "null, because latents have a density and no probabilities")
        process = run.model.sampler.process
        if self.floor is not None and "loss.floor" in getattr(process, "idle", ()):
            check.fail("floor", self.floor, f"null, because the process {type(process).__name__} does not read it")
        images = self.opened(run)
        terms = bound_terms(run.model, images, run.trainer, self.floor)
        latent = "" if run.model.codec.bounded else "latent_"
        values = {f"{latent}nll_{each}": terms.total(each) for each in terms.means}
        values |= {f"{latent}gain_{each}": terms.gain(each) for each in terms.means}
        large = large_variance(run.model)
        named = {"large": None if isinstance(large, FixedLarge) else type(large).__name__, "floor": self.floor}
        others = "".join(f", {name}={value}" for name, value in named.items() if value is not None)
        settings = f"NegativeLogLikelihood(draws=1, denoiser={type(run.model.denoiser('raw')).__name__}{others})"
        lines, names = nll_lines(terms, "latents" if latent else "images"), (f"{latent}nll", f"{latent}gain")
        pictures, tables = {"terms": draw_nll(terms)}, {"terms": nll_rows(terms)}
        return self.measurement(images, values, names, settings, pictures=pictures, lines=lines, tables=tables)


def nll_lines(terms: Terms, what: str) -> list[str]:
    """The sums of the terms for each variance."""
    head = f"bits per dimension, {terms.num_images} {what}" + " " * 20
    rows = [head + "".join(f"{name:>12}" for name in terms.means)]
    parts = {
        "L_T, the prior": lambda m: m[0],
        "L_1 .. L_(T-1), the steps": lambda m: m[2:].sum(),
        "L_0, the decoder": lambda m: m[1],
    }
    for title, part in parts.items():
        rows.append(f"  {title:44}" + "".join(f"{part(mean).item():12.5f}" for mean in terms.means.values()))
    totals = [terms.total(name) for name in terms.means]
    gains = [terms.gain(name)[0] for name in terms.means]
    return [
        *rows,
        f"  {'all':44}" + "".join(f"{value:12.4f}" for value, _ in totals),
        f"  {'standard error over images':44}" + "".join(f"{error:12.4f}" for _, error in totals),
        f"  {'gained over the distribution of x_T alone':44}" + "".join(f"{gain:12.4f}" for gain in gains),
    ]


def nll_rows(terms: Terms) -> list[dict[str, Any]]:
    """A row for each term: its name, t of the step from t to t - 1, then mean and standard error for each variance."""
    values = {}
    for name, mean in terms.means.items():
        values |= {name: mean, f"{name}_error": terms.error(name)}
    T, rows = len(terms.distortion) - 1, []
    for t in [0, *range(T, 0, -1)]:
        rows.append({"term": f"L_{t - 1}" if t else f"L_{T}", "t": t or T})
        rows[-1] |= {name: f"{value[t]:.8g}" for name, value in values.items()}
        rows[-1]["x0_mse"] = f"{terms.distortion[t]:.8g}" if t else ""
    return rows


def draw_nll(terms: Terms) -> Figure:
    """Each term over its time on logarithmic axes (Nichol and Dhariwal 2021, figure 2), and cumulative sums."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    T = len(terms.distortion) - 1
    times = list(range(1, T + 1))
    for number, (name, mean) in enumerate(terms.means.items()):
        style = look(number) | {"marker": ""}
        left.plot(times, mean[1:].clamp(min=1e-9), label=name, **style)
        value, error = terms.total(name)
        so_far = mean[1:].flip(0).cumsum(0).flip(0) + mean[0]
        right.plot(times, so_far, label=f"{name}: {value:.3f} ± {error:.3f}", **style)
    left.set(xscale="log", yscale="log", xlabel="time t", ylabel="the term from t to t - 1 (bits/dim)")
    right.set(xscale="log", xlabel="time t", ylabel="all terms from T down to t (bits/dim)")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        legend_above(axes)
        set_apart(axes)
    return figure
