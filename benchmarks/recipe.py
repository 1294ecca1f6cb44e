"""What each setting of `experiment=mnist_class` is worth, added one by one to the usual settings of a DDPM.

    python -m benchmarks.recipe [--steps 1070] [--seeds 1]

Trains under runs/recipe what is missing (2 to 4 minutes of one core each), measures 2,000 samples without guidance, in
20 ancestral steps, and writes the table of docs/benchmarks.md.
"""

import argparse
import json
from itertools import accumulate

from benchmarks.equal_minutes import QUIET, ROOT, Values, measure, merged, replace_between, run, with_error
from benchmarks.run import table

PAGE, FILE = ROOT / "docs" / "benchmarks.md", ROOT / "benchmarks" / "measured" / "recipe.json"
START, END = "<!-- written by python -m benchmarks.recipe -->", "<!-- end -->"
PLAIN = {
    **{"model": "unet_tiny", "+model.scale_shift": "true"},
    **{"objective": "v", "weight": "uniform", "time_sampler": "uniform", "cond.dropout": "0.15"},
    **{"optimizer": "adamw", "optimizer.lr": "3.0e-3"},
}
STEPS = {
    "usual: v, AdamW, uniform times and weights": PLAIN,
    "optimizer=muon": {"optimizer": "muon", "optimizer.lr": "4.0e-3"},
    "time_sampler=stratified": {"time_sampler": "stratified"},
    "objective=x0 weight=min_snr, bound 50": {"objective": "x0", "weight": "min_snr", "weight.gamma": "50"},
    "weight.gamma=10": {"weight.gamma": "10"},
    "time_sampler=logit_normal": {
        **{"time_sampler": "logit_normal", "time_sampler.mean": "0", "time_sampler.std": "1"},
    },
    "cond.dropout=0.05": {"cond.dropout": "0.05"},
    "time_sampler.mean=0.6 time_sampler.std=1.2": {"time_sampler.mean": "0.6", "time_sampler.std": "1.2"},
}
"""What each row changes; it keeps the changes of the rows above."""


def settings() -> dict[str, dict[str, str]]:
    return dict(zip(STEPS, accumulate(STEPS.values(), lambda before, now: {**before, **now}), strict=True))


def measured(name: str, chosen: dict[str, str], steps: int, seed: int) -> dict[str, float]:
    folder = ROOT / "runs" / "recipe" / f"{list(STEPS).index(name)}_{steps}steps_seed{seed}"
    words = [f"{field}={value}" for field, value in chosen.items()]
    if not (folder / "checkpoints" / "last.ckpt").exists():
        run("train.py", *words, *QUIET, f"trainer.max_steps={steps}", f"seed={seed}", f"run_dir={folder}")
    found = measure(folder / "checkpoints" / "last.ckpt", ())
    print(name, seed, found, flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1070, help="of training, with batches of 32")
    parser.add_argument("--seeds", type=int, default=1)
    given = parser.parse_args()
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    for name, chosen in settings().items():
        for seed in map(str, range(given.seeds)):
            values = known.setdefault(f"{name}|{given.steps}", {})
            if seed not in values:
                values[seed] = measured(name, chosen, given.steps, int(seed))
                FILE.write_text(json.dumps(known, indent=1) + "\n")
    rows = [row(name, merged(known[f"{name}|{given.steps}"])) for name in STEPS]
    replace_between(PAGE, START, END, table(rows))


def row(name: str, values: Values) -> dict[str, str]:
    numbers = {key: with_error(values[key], 2) for key in ("precision", "recall", "coverage")}
    return {"setting": name, "FID": with_error(values["fid"], 2), **numbers}


if __name__ == "__main__":
    main()
