"""metric=nll: the variational bound on -log p(x0) in bits per dimension, every term of it (Ho et al. 2020, eq. 5)."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only
from matplotlib.figure import Figure

from ddpm.atomic import whole, write_whole
from ddpm.measure import Measurement, ModelRun
from ddpm.measures.bound import Terms, bound_terms
from ddpm.measures.images import OfLikelihood
from ddpm.metrics.evaluator import count_name
from ddpm.metrics.score import Estimate


@dataclass(frozen=True)
class NegativeLogLikelihood(OfLikelihood):
    """One draw of noise for each image and time.

    Side by side for the fixed variances, the learned one if there is one, and the best single number for each time.
    """

    def measure(self, run: ModelRun) -> Measurement:
        assert run.module is not None
        assert run.ckpt is not None
        images = self.opened(run)
        terms = bound_terms(run.module, images, run.trainer)
        count = count_name(terms.num_images)
        report(terms, run.folder / f"{run.ckpt.stem}_nll_{self.split}_{count}")
        estimates = {f"nll_{each}_{count}": Estimate(*terms.total(each)) for each in terms.means}
        estimates |= {f"gain_{each}_{count}": Estimate(*terms.gain(each)) for each in terms.means}
        settings = f"NegativeLogLikelihood(draws=1, denoiser={type(run.module.denoiser('raw')).__name__})"
        return Measurement(estimates, self.protocol(images, ("nll", "gain"), settings))


@rank_zero_only
def report(terms: Terms, path: Path) -> None:
    """The sums of the terms for each variance, printed; the table of all of them and its picture, as files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    print(f"\nbits per dimension, {terms.num_images} images" + " " * 18 + "".join(f"{n:>12}" for n in terms.means))
    parts = {
        "L_T, the prior": lambda m: m[0],
        "L_1 .. L_(T-1), the steps": lambda m: m[2:].sum(),
        "L_0, the decoder": lambda m: m[1],
    }
    for title, part in parts.items():
        print(f"  {title:44}" + "".join(f"{part(mean).item():12.5f}" for mean in terms.means.values()))
    totals = [terms.total(name) for name in terms.means]
    print(f"  {'all':44}" + "".join(f"{value:12.4f}" for value, _ in totals))
    print(f"  {'standard error over images':44}" + "".join(f"{error:12.4f}" for _, error in totals))
    gains = [terms.gain(name)[0] for name in terms.means]
    print(f"  {'gained over the distribution of x_T alone':44}" + "".join(f"{gain:12.4f}" for gain in gains))
    write_csv(path.with_suffix(".csv"), terms)
    draw(path.with_suffix(".png"), terms)
    print(f"  every term in {path}.csv, drawn in {path}.png", flush=True)


def write_csv(path: Path, terms: Terms) -> None:
    """A row a term: its name, t of the x_t that it begins with, then mean and standard error for each variance."""
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(["term", "t", *(part for name in terms.means for part in (name, f"{name}_error")), "x0_mse"])
    errors = {name: terms.error(name) for name in terms.means}
    T = len(terms.distortion) - 1
    for t in [0, *range(T, 0, -1)]:
        cells = [f"{part:.8g}" for name in terms.means for part in (terms.means[name][t], errors[name][t])]
        label = f"L_{t - 1}" if t else f"L_{T}"
        writer.writerow([label, t or T, *cells, f"{terms.distortion[t]:.8g}" if t else ""])
    write_whole(path, file.getvalue().encode())


def draw(path: Path, terms: Terms) -> None:
    """Each term against its time on logarithmic axes, as Nichol and Dhariwal 2021, figure 2; and what adds up."""
    figure = Figure(figsize=(9.5, 3.8), layout="constrained")
    left, right = figure.subplots(1, 2)
    T = len(terms.distortion) - 1
    times = list(range(1, T + 1))
    for name, mean in terms.means.items():
        left.plot(times, mean[1:].clamp(min=1e-9), label=name, linewidth=1.5)
        value, error = terms.total(name)
        so_far = mean[1:].flip(0).cumsum(0).flip(0) + mean[0]
        right.plot(times, so_far, linewidth=1.5, label=f"{name}: {value:.3f} ± {error:.3f}")
    left.set(xscale="log", yscale="log", xlabel="t", ylabel="bits/dim", title="the term from t to t - 1")
    right.set(xscale="log", xlabel="t", ylabel="bits/dim", title="all terms from T down to t")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    with whole(path) as partial:
        figure.savefig(partial, format="png", dpi=120)
