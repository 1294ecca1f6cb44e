"""All benchmarks, printed as tables and written to docs/benchmarks.md: python -m benchmarks.run [--rounds 14]"""

import argparse
import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    degradations,
    guidance_step,
    lightning_loop,
    loader,
    metrics,
    sampler_step,
    sampling_loop,
    simplex,
    solver_step,
    training_step,
    turns,
)
from ddpm.runs.console import quiet_libraries

PAGE = Path(__file__).resolve().parents[1] / "docs" / "benchmarks.md"
START = "<!-- written by make bench: what stands below is replaced -->"


def table(rows: list[dict[str, Any]]) -> str:
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([str(row.get(name, "")) for name in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def processor() -> str:
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return names[0].partition(": ")[2] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=14, help="repetitions of a training step; others scale with it")
    rounds = parser.parse_args().rounds
    quiet_libraries()
    sections = {
        "Training step, 35.7 M U-Net": (training_step, lambda: training_step.rows(rounds)),
        "Sampler step without the network": (sampler_step, lambda: sampler_step.rows(rounds * 30)),
        "Solver step without the network": (solver_step, lambda: solver_step.rows(rounds * 15)),
        "Degrading a batch": (degradations, lambda: degradations.rows(rounds)),
        "Simplex noise": (simplex, lambda: simplex.rows(max(3, rounds // 3))),
        "Guided step": (guidance_step, lambda: guidance_step.rows(rounds)),
        "Sampling loop, compiled": (sampling_loop, lambda: sampling_loop.rows(rounds)),
        "Lightning's loop against a bare loop": (lightning_loop, lambda: lightning_loop.rows(max(3, rounds // 3))),
        "Two networks in turns against their passes": (turns, lambda: turns.rows(max(3, rounds // 3))),
        "Data loader": (loader, loader.measure),
        "Metrics": (metrics, lambda: metrics.rows(max(3, rounds // 3))),
    }
    load = os.getloadavg()[0]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "denoising-diffusion-pytorch"))
    page = [
        START,
        f"\nMedians of interleaved rounds on {processor()}, {torch.get_num_threads()} threads, load {load:.1f} at the "
        f"start; Python {platform.python_version()}, {packages}. Times of two runs cannot be compared, ratios within "
        "one can.",
    ]
    for title, (module, rows) in sections.items():
        text = f"\n## {title}\n\n{module.__doc__.strip()}\n\n{table(rows())}"
        print(text, flush=True)
        page.append(text)
    kept = PAGE.read_text().partition(START)[0] if PAGE.exists() else "# Benchmarks\n\n"
    PAGE.write_text(kept + "\n".join(page) + "\n")
    print(f"\nwritten to {PAGE.relative_to(Path.cwd()) if PAGE.is_relative_to(Path.cwd()) else PAGE}", file=sys.stderr)


if __name__ == "__main__":
    main()
