"""Processes of a run that do not come, or hang: the others say which one they wait for, and end."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
from processes import LONG, Command, checkpoints_of, command_environment, ended, free_port, members
from small_runs import ROOT, SMALL
from test_processes import TWO

from ddpm.base import exit_codes
from ddpm.config import build
from ddpm.runs import peers

HOST = socket.gethostname()


def python(code, *words):
    """A program of its own, which fails a test if it does not end within seconds."""
    program = [sys.executable, "-c", code, *words]
    environment = {**command_environment(), "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def waiting_for(text, process, seconds=60):
    """Wait until a forked command has printed a text."""
    deadline = time.monotonic() + seconds
    while text not in (output := os.pread(process.file.fileno(), 10**6, 0).decode()):
        assert process.poll() is None, output
        assert time.monotonic() < deadline, output
        time.sleep(0.05)


def alone_of_two(folder, port):
    """The first of two ranks, as torchrun starts it; the second never comes."""
    shared = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0", "TORCHELASTIC_RUN_ID": "alone"}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "LOCAL_RANK": "0", **command_environment()}
    return Command("train.py", *TWO, "limits.timeout_minutes=0.2", folder=folder, environment=shared)


@pytest.mark.slow
def test_a_rank_that_hangs_is_named_and_waited_for_no_longer_than_told(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "EVERY", 0.5)
    monkeypatch.setattr(peers, "PATIENCE", 3)
    process = Command("train.py", *TWO, *LONG, "limits.timeout_minutes=0.2", folder=tmp_path)
    checkpoints_of(tmp_path, process, 2)
    second = sorted(members(process.pid))[1]
    os.kill(second, signal.SIGSTOP)
    waiting_for(f"rank 0 on {HOST} waits for rank 1 on {HOST}\n", process, 20)
    process.wait(40)
    code, output = ended(process)
    assert code == exit_codes.LOST, output
    assert output.count("waits for rank") == 1
    assert "another process of this run is gone or hangs" in output


def test_ranks_are_named_once_per_wait_and_only_if_others_are_ahead():
    since = {}
    assert peers.overdue([5, 5, 4], since, 0) == []
    assert peers.overdue([9, 9, 8], since, 60) == []  # it moves
    assert peers.overdue([9, 9, 8], since, 119) == []
    assert peers.overdue([9, 9, 8], since, 120) == [2]
    assert peers.overdue([9, 9, 8], since, 300) == []
    assert peers.overdue([9, 9, 9], since, 400) == []
    assert peers.overdue([9, -1, 9], since, 500) == []
    assert peers.overdue([9, -1, 9], since, 560) == [1]


@pytest.mark.slow
def test_a_rank_that_does_not_come_is_named_and_the_first_ends(tmp_path, monkeypatch):
    monkeypatch.setattr(peers, "EVERY", 0.5)
    monkeypatch.setattr(peers, "PATIENCE", 3)
    process = alone_of_two(tmp_path, free_port())
    waiting_for(f"rank 0 on {HOST} waits for rank 1, which has not connected", process)
    code, output = ended(process)
    assert code == exit_codes.LOST, output
    assert "not all processes have connected" in output
    assert "Traceback" not in output


def test_a_signal_ends_a_rank_that_waits_for_the_first_connection(tmp_path):
    process = alone_of_two(tmp_path, free_port())
    waiting_for("on 2 x cpu", process)
    time.sleep(2)
    begin = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code, output = ended(process)
    assert code == 128 + signal.SIGTERM, output
    assert time.monotonic() - begin < 10
    assert "SIGTERM: ended before all processes connected" in output


@pytest.mark.parametrize(("ends", "code"), [("exit 2", exit_codes.COMMAND), ("kill -9 $$", exit_codes.LOST)])
def test_a_child_that_fails_before_it_connects_ends_the_first_process(ends, code):
    process = python(
        "import subprocess, sys\n"
        "from torch.distributed import TCPStore\n"
        "from ddpm.runs import interruption\n"
        "interruption.CHILDREN.append(subprocess.Popen(['sh', '-c', sys.argv[2]]))\n"
        "with interruption.connecting():\n"
        "    TCPStore('127.0.0.1', int(sys.argv[1]), 2, True)\n",
        *(free_port(), ends),
    )
    output, _ = process.communicate(timeout=60)
    assert process.returncode == code, output
    assert "this process ends, because another of this run" in output


def test_a_port_that_is_taken_is_one_line(tmp_path):
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        environment = {**command_environment(), "MASTER_PORT": port}
        code, output = ended(Command("train.py", *SMALL, "trainer.devices=2", folder=tmp_path, environment=environment))
    assert code == exit_codes.COMMAND, output
    assert f"error: MASTER_PORT={port} is taken by another program: set it to a free port" in output
    assert "Traceback" not in output


@pytest.mark.parametrize("port", ["abc", "0", "65536", "-1"])
def test_a_wrong_port_is_named_before_any_process_starts(config, monkeypatch, port):
    monkeypatch.setenv("MASTER_PORT", port)
    with pytest.raises(ValueError, match=r"^MASTER_PORT must be an integer in 1\.\.65535, got "):
        build.trainer(config("train", *TWO))


def test_a_signal_that_python_drops_in_a_hook_of_fork_ends_the_command_all_the_same():
    process = python(
        "import os, signal, time\n"
        "from ddpm.runs.interruption import heed_signals\n"
        "def once():\n"
        "    signals.pop() and os.kill(os.getpid(), signal.SIGTERM) if signals else None\n"
        "signals = [True]\n"
        "with heed_signals():\n"
        "    os.register_at_fork(before=once)\n"
        "    if os.fork() == 0:\n"
        "        os._exit(0)\n"
        "    time.sleep(60)\n"
    )
    begin = time.monotonic()
    output, _ = process.communicate(timeout=50)
    assert process.returncode == 128 + signal.SIGTERM, output
    assert time.monotonic() - begin < 30
    assert "SIGTERM: " in output
