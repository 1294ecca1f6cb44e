"""Diffusion of latents beside diffusion of pixels after equal minutes of training, on digits of 28 and 64 pixels.

    python -m benchmarks.latents [--minutes 6] [--seeds 2] [--only pixels_28,latents_28]

"longer" pixel models are trained for twice the minutes, as much as the latents and their first stage together. All
models are conditioned on the class and sampled without guidance in 20 steps of DDIM. Trains what is missing under
runs/latents, measures what is missing, and writes the table of docs/latent_diffusion.md. Use an idle machine.
"""

import torch

from benchmarks.equal_minutes import ROOT, Study, Words, arguments, replace_below, rows
from benchmarks.run import table

PAGE = ROOT / "docs" / "latent_diffusion.md"
START = "<!-- written by python -m benchmarks.latents: what stands below is replaced -->"
LARGE = ("data=mnist64",)
DDIM = ("sampler=ddim", "sampler.steps=20")
MODELS: dict[str, Words] = {
    "pixels_28": ("experiment=mnist_class",),
    "stage_28": ("experiment=first_stage_mnist",),
    "latents_28": ("experiment=ldm_mnist",),
    "pixels_64": ("experiment=mnist_class", *LARGE, "model.patch_size=4"),
    "stage_64": ("experiment=first_stage_mnist", *LARGE, "model.patch_size=4"),
    "latents_64": ("experiment=ldm_mnist", *LARGE),
}
"""What is trained, by name. The latents of 28 pixels are 7 x 7 x 3, those of 64 are 8 x 8 x 3."""
STUDY = Study(
    ROOT / "runs" / "latents",
    ROOT / "benchmarks" / "measured" / "latents.json",
    MODELS,
    {
        "pixels, 28 x 28": ("pixels_28", DDIM),
        "latents, 28 x 28": ("latents_28", DDIM),
        "pixels, 64 x 64": ("pixels_64", DDIM),
        "latents, 64 x 64": ("latents_64", DDIM),
    },
    {"latents_28": "stage_28", "latents_64": "stage_64"},
)


def main() -> None:
    given = arguments(__doc__, minutes=6, seeds=2, models=MODELS)
    STUDY.folder.mkdir(parents=True, exist_ok=True)
    pixels = [name for name in MODELS if name.startswith("pixels") and (not given.only or name in given.only)]
    values = STUDY.measured(given.seeds, given.minutes, given.only)
    longer = STUDY.measured(given.seeds, 2 * given.minutes, pixels) if pixels else {}
    values = STUDY.timed(values, given.minutes)
    values |= {f"{method}, longer": {**own, "ms": values[method].get("ms", [])} for method, own in longer.items()}
    about = f"{given.minutes:g} minutes of training each. CPU threads: {torch.get_num_threads()}."
    replace_below(PAGE, START, f"{about}\n\n{table(rows(values))}")
    print(table(rows(values)))


if __name__ == "__main__":
    main()
