"""A sweep through submitit, by its executor that needs no cluster: one job a setting, and a job that is preempted."""

import importlib.util
import os
import signal
import time
from pathlib import Path

import pytest
from processes import command, ended
from small_runs import SMALL

from ddpm.checkpoint.folder import list_checkpoints

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("submitit") is None, reason="submitit is not installed: pip install '.[slurm]'"
    ),
]
WORDS = (
    *("-m", "hydra/launcher=submitit_local", "schedule=linear,cosine"),
    *(*SMALL[:-3], "~callbacks.samples", "~callbacks.denoising", "optimizer.warmup_steps=2"),
    *("trainer.max_steps=40", "checkpoint_every_n_steps=1", "data.num_train=64", "data.num_val=16", "resume=auto"),
)


def first_task(folder, process):
    """The process that trains schedule=linear, once it has written a checkpoint. A job is named by its controller."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        if any(list_checkpoints(found) for found in folder.glob("runs/*/0/checkpoints")):
            controllers = [path.name for path in folder.glob("runs/*/.submitit/*") if path.name.isdigit()]
            first = min(controllers, key=int)
            return int(Path(f"/proc/{first}/task/{first}/children").read_text().split()[0])
        time.sleep(0.02)
    raise AssertionError(process.communicate()[0])


def test_two_jobs_train_and_the_preempted_one_saves_is_put_back_and_goes_on(tmp_path):
    process = command(tmp_path, *WORDS)
    os.kill(first_task(tmp_path, process), signal.SIGUSR2)
    code, output = ended(process, 200)
    assert code == 0, output
    (folder,) = (tmp_path / "runs").iterdir()
    for job in ("0", "1"):
        assert list_checkpoints(folder / job / "checkpoints")[0].stem == "00000040"
    logs = sorted(folder.glob(".submitit/*/*_log.out"), key=lambda path: int(path.parent.name))
    told = logs[0].read_text()
    saved = told.partition("SIGUSR2 at step ")[2].partition(":")[0]
    assert "Requeued job" in told
    assert f"at step {int(saved):,}\n" in told.partition("continuing from ")[2]
    assert "continuing from" not in logs[1].read_text()
