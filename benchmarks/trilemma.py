"""Quality, diversity and speed of methods that had the same minutes of training, on the embedded digits.

    python -m benchmarks.trilemma [--minutes 12] [--seeds 3] [--only ddgan_4,vae]

Trains what is missing under runs/trilemma, measures what is missing, and writes the table and the picture of
docs/trilemma.md. Use an idle machine.
"""

import statistics

import matplotlib.pyplot as plt
import torch

from benchmarks.equal_minutes import ROOT, Study, Values, Words, arguments, replace_below, rows
from benchmarks.run import table
from ddpm.evaluation.curves import label_points, logarithmic

PAGE, PICTURE = ROOT / "docs" / "trilemma.md", ROOT / "docs" / "trilemma.png"
START = "<!-- written by make trilemma: what stands below is replaced -->"

RECONSTRUCTION = ("experiment=ddgan_mnist", "schedule=vp", "time_sampler=uniform")
DDGAN = (*RECONSTRUCTION, "loss.reconstruction_weight=0")
"""As in the paper."""
MODELS: dict[str, Words] = {
    "ddpm": ("experiment=mnist_uncond",),
    "ddpm_class": ("experiment=mnist_class",),
    "ddgan_1": (*DDGAN, "schedule.num_timesteps=1"),
    "ddgan_2": (*DDGAN, "schedule.num_timesteps=2"),
    "ddgan_4": DDGAN,
    "ddgan_4_reconstruction": RECONSTRUCTION,
    "ddgan_4_recipe": ("experiment=ddgan_mnist",),
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
    "DDGAN with reconstruction, 4 steps": ("ddgan_4_reconstruction", ()),
    "DDGAN, our recipe, 4 steps": ("ddgan_4_recipe", ()),
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
    """Speed to the right, quality upwards, diversity as colour. FID has its standard error over seeds, if there are
    several."""
    figure, axes = plt.subplots(figsize=(9, 5.5), layout="constrained")
    x = [1000 / statistics.median(own["ms"]) for own in values.values()]
    y = [statistics.mean(own["fid"]) for own in values.values()]
    errors = [statistics.stdev(own["fid"]) / len(own["fid"]) ** 0.5 if own["fid"][1:] else 0 for own in values.values()]
    recall = [statistics.mean(own["recall"]) for own in values.values()]
    axes.errorbar(x, y, errors if any(errors) else None, fmt="none", ecolor="0.4", capsize=3)
    shown = axes.scatter(x, y, c=recall, s=90, cmap="viridis", edgecolors="black", zorder=3)
    axes.set(xlabel="images per second on a CPU, higher is better", ylabel="FID (features of digits), lower is better")
    logarithmic(axes.xaxis)
    logarithmic(axes.yaxis)
    axes.margins(0.12)
    axes.invert_yaxis()
    axes.grid(alpha=0.3)
    figure.colorbar(shown, label="recall, higher is better")
    label_points(axes, list(zip(x, y, strict=True)), list(values))
    figure.savefig(PICTURE, dpi=100)


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
