"""evaluate.py as a command, by one process and by two: the same values, each image measured once."""

import subprocess
import sys

import pytest
from precision import roundings
from small_runs import ROOT, SMALL, command_environment

from ddpm.commands import train
from ddpm.metrics.protocol import read_result


@pytest.fixture
def checkpoint(small, tmp_path):
    train.run_train(small())
    return tmp_path / "run" / "checkpoints" / "last.ckpt"


def evaluated(folder, checkpoint, *words):
    """The result of 33 images, of which one process has 17 and the other 16."""
    return of_command(folder, checkpoint, "num_samples=33", "metric=all", "num_real=65", *words)


def of_command(folder, checkpoint, *words):
    folder.mkdir(exist_ok=True)
    settings = (f"ckpt={checkpoint}", "features=mnist", "trainer=cpu", f"out={folder / 'results'}")
    command = [sys.executable, str(ROOT / "evaluate.py"), *settings, *words]
    environment = {**command_environment(), "DDPM_CACHE": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = (folder / "results").glob("*.json")
    return read_result(path)


@pytest.mark.slow
def test_two_processes_measure_what_one_measures(checkpoint, tmp_path):
    one = evaluated(tmp_path / "one", checkpoint)
    two = evaluated(tmp_path / "two", checkpoint, "trainer.devices=2", "trainer.strategy=ddp")
    assert two.protocol == one.protocol
    assert two.protocol.num_generated == 33
    # The images are one file that the first wrote and the second found: features of other batches differ by rounding
    assert two.metrics == pytest.approx(one.metrics, rel=roundings(1000))
    assert {name.split("_mnist")[0] for name in one.metrics} == {
        *("fid", "sfid", "is", "is_std", "kid", "precision", "recall", "density", "coverage")
    }


@pytest.mark.slow
@pytest.mark.parametrize("measure", ["restoration", "anomaly"])
def test_two_processes_restore_what_one_restores(small, tmp_path, measure):
    """33 images each, so that one process has one more than the other."""
    train.run_train(small("data=mnist", "data.num_train=40", "data.num_val=33", "noise=simplex"))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    one, two = (
        of_command(tmp_path / str(devices), checkpoint, f"metric={measure}", f"trainer.devices={devices}")
        for devices in (1, 2)
    )
    assert two.protocol == one.protocol
    assert two.metrics == pytest.approx(one.metrics, rel=roundings(1000), nan_ok=True)


@pytest.mark.slow
def test_two_processes_measure_while_training_what_one_measures(tmp_path):
    """With a large eps Adam's steps are smooth in the gradients, so that rounding stays rounding."""
    found = []
    for devices in (1, 2):
        words = [*SMALL, "optimizer.eps=1.0", "metric=fid", "features=mnist", "evaluate.num_samples=33"]
        words += ["logger=csv", f"trainer.devices={devices}", f"run_dir={tmp_path / str(devices)}"]
        words += ["keep.best=eval/fid_mnist_33", "evaluate.every_n_steps=2"]
        command = [sys.executable, str(ROOT / "train.py"), *words]
        environment = {**command_environment(), "DDPM_CACHE": str(tmp_path / f"cache{devices}")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stdout + done.stderr
        run = tmp_path / str(devices)
        assert (run / "checkpoints" / "best.ckpt").exists()
        results = [read_result(path) for path in sorted((run / "evaluations").glob("*.json"))]
        found.append([result.metrics["fid_mnist_33"] for result in results])
    assert len(found[0]) == 2
    assert found[1] == pytest.approx(found[0], rel=1e-3)
