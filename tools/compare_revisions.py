"""Check that two checkouts compute the same: python tools/compare_revisions.py OLD NEW [--cases mnist,swirl]

OLD and NEW are folders or git revisions. Each trains every case of its own `tools/revision_cases.py` for 30 steps. The
table shows what is bitwise equal: losses, raw and averaged weights (sha256 of their bytes in the order of their names),
eight samples, and the values of one evaluation or validation.
"""

import argparse
import csv
import hashlib
import json
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
COLUMNS = ("losses", "raw weights", "averaged weights", "samples", "evaluation")


@contextmanager
def checkout(name: str) -> Iterator[Path]:
    """Yield the folder itself, or a temporary worktree of a revision."""
    if Path(name).is_dir():
        yield Path(name).resolve()
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "checkout"
        subprocess.run(["git", "worktree", "add", "--quiet", "--detach", folder, name], cwd=ROOT, check=True)
        try:
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def words_of(folder: Path) -> dict[str, Any]:
    """The cases of a checkout; one without this tool uses those of the tool's own checkout."""
    own = folder / "tools" / "revision_cases.py"
    return runpy.run_path(str(own if own.exists() else ROOT / "tools" / "revision_cases.py"))


def trained(folder: Path, case: str, words: dict[str, Any]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as temporary:
        run = Path(temporary) / "run"
        command = [sys.executable, str(folder / "train.py"), *(w.format(folder=run) for w in words["SHORT"])]
        command += words["CASES"][case]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(folder / "src"), "PYTHONHASHSEED": "0"}
        done = subprocess.run(
            [*command, *words["CASES"][case]],
            cwd=temporary,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise SystemExit(
                f"{folder}, {case}: exit code {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
            )
        weights = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
        with open(run / "metrics.csv", newline="") as file:
            rows = list(csv.DictReader(file))
        picture = run / words["SAMPLES"]
        return {
            "losses": [row["train/loss"] for row in rows],
            "raw weights": digest(weights, words["RAW"]),
            "averaged weights": digest(weights, words["AVERAGED"]),
            "samples": hashlib.sha256(np.asarray(Image.open(picture)).tobytes()).hexdigest()
            if picture.exists()
            else None,
            "evaluation": {k: v for row in rows for k, v in row.items() if v and k.startswith(("eval/", "val/"))},
        }


def sha256_of(picture: Path) -> str:
    """sha256 of the pixels."""
    return hashlib.sha256(np.asarray(Image.open(picture)).tobytes()).hexdigest()


def digest(weights: dict[str, Any], prefix: str) -> str:
    total = hashlib.sha256()
    names = sorted(name for name in weights if name.startswith(prefix) and isinstance(weights[name], torch.Tensor))
    assert names, prefix
    for name in names:
        total.update(weights[name].contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def measured(name: str, cases: list[str], jobs: int) -> dict[str, dict[str, Any]]:
    with checkout(name) as folder, ThreadPoolExecutor(jobs) as pool:
        words = words_of(folder)
        names = cases or list(words["CASES"])
        return dict(zip(names, pool.map(lambda case: trained(folder, case, words), names), strict=True))


def cell(old: Any, new: Any) -> str:
    if old is None and new is None:
        return "-"
    return "equal" if old == new else "DIFFERENT"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", help="a folder or a revision")
    parser.add_argument("new", help="a folder or a revision")
    parser.add_argument("--cases", default="", help="names of cases, separated by commas (default: all)")
    parser.add_argument("--jobs", type=int, default=2, help="number of parallel trainings")
    parser.add_argument("--keep", type=Path, help="write the measured values to this JSON file")
    given = parser.parse_args()
    cases = [case for case in given.cases.split(",") if case]
    old, new = (measured(name, cases, given.jobs) for name in (given.old, given.new))
    if given.keep:
        given.keep.write_text(json.dumps({"old": old, "new": new}, indent=1))
    print("| case | last loss | " + " | ".join(COLUMNS) + " |\n" + "|---" * (len(COLUMNS) + 2) + "|")
    for case in new:
        cells = [cell(old[case][column], new[case][column]) for column in COLUMNS]
        print(f"| {case} | {new[case]['losses'][-1]} | " + " | ".join(cells) + " |")
    different = [case for case in new if any(old[case][column] != new[case][column] for column in COLUMNS)]
    sys.exit(f"{len(different)} of {len(new)} cases differ: {', '.join(different)}" if different else 0)


if __name__ == "__main__":
    main()
