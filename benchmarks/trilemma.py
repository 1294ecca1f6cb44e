"""Quality, diversity and speed of methods that had the same minutes of training, on the embedded digits.

    python -m benchmarks.trilemma [--minutes 12] [--seeds 3] [--only ddgan_4,vae]

Trains what is missing under runs/trilemma, measures what is missing, and writes the table and the picture of
docs/trilemma.md. Use an idle machine.
"""

import statistics

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator
from matplotlib.transforms import Bbox

from benchmarks.equal_minutes import ROOT, Study, Values, Words, arguments, replace_below, rows
from benchmarks.run import table

PAGE, PICTURE = ROOT / "docs" / "trilemma.md", ROOT / "docs" / "trilemma.png"
START = "<!-- written by make trilemma: what stands below is replaced -->"

DDGAN = ("experiment=ddgan_mnist",)
MODELS: dict[str, Words] = {
    "ddpm": ("experiment=mnist",),
    "ddpm_class": ("experiment=mnist_class",),
    "ddgan_1": (*DDGAN, "schedule.num_timesteps=1"),
    "ddgan_2": (*DDGAN, "schedule.num_timesteps=2"),
    "ddgan_4": DDGAN,
    "vae": ("experiment=vae_mnist",),
    "first_stage": ("experiment=first_stage_mnist",),
    "ldm_class": ("experiment=ldm_mnist",),
}
"""What is trained, by name."""

METHODS: dict[str, tuple[str, Words]] = {
    **{f"DDPM, ancestral, {n} steps": ("ddpm", (f"sampler.steps={n}",)) for n in (4, 20, 100)},
    **{f"DDIM, {n} steps": ("ddpm", ("sampler=ddim", f"sampler.steps={n}")) for n in (4, 20, 100)},
    **{f"DPM-Solver++, {n} steps": ("ddpm", ("sampler=dpm_solver", f"sampler.steps={n}")) for n in (4, 10, 20)},
    **{
        f"guidance {scale}, DDIM, 20 steps": (
            "ddpm_class",
            ("sampler=ddim", "sampler.steps=20", "guidance=classifier_free", f"guidance.scale={scale}"),
        )
        for scale in (1, 3)
    },
    **{f"DDGAN, {n} step{'s' * (n > 1)}": (f"ddgan_{n}", ()) for n in (1, 2, 4)},
    "VAE": ("vae", ()),
    "latent diffusion, DDIM, 20 steps": ("ldm_class", ("sampler=ddim", "sampler.steps=20")),
}
"""What is measured: a model and how it is sampled."""

STUDY = Study(
    ROOT / "runs" / "trilemma",
    ROOT / "benchmarks" / "measured" / "trilemma.json",
    MODELS,
    METHODS,
    {"ldm_class": "first_stage"},
)


def draw(values: dict[str, Values]) -> None:
    """Speed to the right, quality upwards, diversity as colour."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    x = [1000 / statistics.median(own["ms"]) for own in values.values()]
    y = [statistics.mean(own["fid"]) for own in values.values()]
    recall = [statistics.mean(own["recall"]) for own in values.values()]
    shown = axes.scatter(x, y, c=recall, s=90, cmap="viridis", edgecolors="black", zorder=3)
    axes.set(xscale="log", yscale="log", xlabel="images a second on a CPU", ylabel="FID (features of digits)")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("")
    axes.grid(alpha=0.3)
    figure.colorbar(shown, label="recall")
    figure.canvas.draw()  # fixes the places of the points in the picture
    taken = [Bbox.from_bounds(*(axes.transData.transform(point) - 6), 12, 12) for point in zip(x, y, strict=True)]
    for method, point in zip(values, zip(x, y, strict=True), strict=True):
        taken.append(label(axes, method, point, taken))
    figure.savefig(PICTURE, dpi=100)


def label(axes: Axes, text: str, point: tuple[float, float], taken: list[Bbox]) -> Bbox:
    """Write beside the point, at the first place that covers nothing. Returns the place, in pixels."""
    for offset, side in (((8, 0), "left"), ((-8, 0), "right"), ((0, 10), "center"), ((0, -10), "center")):
        way = {"ha": side, "va": "center", "fontsize": 8, "textcoords": "offset points"}
        note = axes.annotate(text, point, xytext=offset, **way)
        place = note.get_window_extent()
        if not any(place.overlaps(each) for each in taken) or offset == (0, -10):
            break
        note.remove()
    return place


def main() -> None:
    given = arguments(__doc__, minutes=12, seeds=3, models=MODELS)
    STUDY.folder.mkdir(parents=True, exist_ok=True)
    values = STUDY.timed(STUDY.measured(given.seeds, given.minutes, given.only), given.minutes)
    threads = torch.get_num_threads()
    about = f"{given.minutes:g} minutes of training each. CPU threads: {threads}."
    replace_below(PAGE, START, f"{about}\n\n{table(rows(values))}")
    draw(values)
    print(table(rows(values)))


if __name__ == "__main__":
    main()
