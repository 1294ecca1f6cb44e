"""Signals, and errors of one process or one rank: commands in processes of their own, and trainings here."""

import os
import signal
import subprocess
import sys
import time

import pytest
from small_runs import ROOT, SMALL, command_environment
from test_processes import ended, members

ENDLESS = ("num_samples=5000", "sampler.steps=1000", "format=png", "out=made", "trainer=cpu", "batch_size=2")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training, and its checkpoint's path."""
    folder = tmp_path_factory.mktemp("trained")
    words = [sys.executable, str(ROOT / "train.py"), *SMALL, "run_dir=runs/one"]
    subprocess.run(words, cwd=folder, env=command_environment(), check=True, capture_output=True)
    return f"ckpt={folder / 'runs/one/checkpoints/last.ckpt'}"


def stopped(folder, number, words, under_way, to_all=False, rank=0, nohup=False):
    """Exit code and output of a command that gets a signal once `under_way` is true."""
    start = lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN if nohup else signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(
        [sys.executable, *words], cwd=folder, env=command_environment(), stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, start_new_session=True, preexec_fn=start,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not under_way() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    if nohup:
        os.kill(process.pid, signal.SIGHUP)
        time.sleep(1)
        assert process.poll() is None
    os.killpg(process.pid, number) if to_all else os.kill(sorted(members(process.pid))[rank], number)
    return ended(process)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_ends_a_generation_which_says_what_is_kept_and_goes_on(tmp_path, trained, number):
    images = lambda: len(list(tmp_path.glob("made/images/[0-9]*.png")))  # noqa: E731
    words = [ROOT / "sample.py", trained, *ENDLESS]
    code, output = stopped(tmp_path, number, words, images, nohup=number == signal.SIGTERM)
    assert code == 128 + number, output
    assert f"{number.name}: {images()} of 5,000 samples are kept; type the same command again to continue" in output
    assert "Traceback" not in output


@pytest.mark.parametrize(("rank", "to_all"), [(0, False), (1, False), (0, True)], ids=["first", "second", "all"])
def test_a_signal_to_any_rank_ends_all_of_a_generation(tmp_path, trained, rank, to_all):
    words = [ROOT / "sample.py", trained, *ENDLESS, "trainer.devices=2"]
    under_way = lambda: len(list(tmp_path.glob("made/images/[0-9]*.png"))) > 3  # noqa: E731
    code, output = stopped(tmp_path, signal.SIGINT, words, under_way, to_all, rank)
    assert code == 128 + signal.SIGINT, output
    assert output.count("SIGINT: ") == 1
