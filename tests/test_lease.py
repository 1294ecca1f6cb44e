"""One folder has one writer, on one machine and on several that share a disk but not their locks."""

import errno
import json
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from processes import Command, checkpoints_of
from small_models import trained
from small_runs import ROOT, SMALL, configured

from ddpm.base.exit_codes import LOST
from ddpm.checkpoint.folder import list_checkpoints
from ddpm.commands import sample, train
from ddpm.runs import lease, run_folder
from ddpm.runs.lease import lock_folder

ELSEWHERE = {"host": "elsewhere", "boot": "another", "process": 7, "start": "1"}
BOOT = Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def leave(folder, seconds, holder=ELSEWHERE):
    """The lease of another process, renewed so many seconds ago."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ".lease"
    path.write_text(json.dumps(holder))
    os.utime(path, (time.time() - seconds,) * 2)
    return path


def held(folder, renewal=20):
    """A process that holds the lock of a folder."""
    code = (
        f"import sys; from pathlib import Path; from ddpm.runs import lease\nlease.RENEWAL = {renewal}\n"
        "with lease.lock_folder(Path(sys.argv[1])): print(flush=True); sys.stdin.read()"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", code, str(folder)], **pipes)
    process.stdout.readline()
    return process


@pytest.fixture(params=["locks", "no locks"])
def locks(request, monkeypatch):
    """A disk with locks and one without."""

    def without(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    if request.param == "no locks":
        monkeypatch.setattr(lease.fcntl, "lockf", without)


def test_a_second_writer_is_told_of_the_first_and_a_killed_one_frees_its_folder_at_once(tmp_path, locks):
    other = held(tmp_path)
    told = rf"out=.* is in use by another command: process {other.pid} on {platform.node()}, .*wait for it or go away"
    with pytest.raises(ValueError, match=told), lock_folder(tmp_path, "out=", "go away"):
        pass
    other.kill()
    other.wait()
    assert (tmp_path / ".lease").exists(), "it was killed"
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_has_the_number_of_a_killed_one_is_another(tmp_path, locks):
    leave(tmp_path, 0, {"host": platform.node(), "boot": BOOT, "process": os.getppid(), "start": "1"})
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("name", ["train.log", ".lock", ".samples.rows"])
def test_a_pipe_in_place_of_a_file_is_refused_and_not_waited_for(tmp_path, name):
    os.mkfifo(tmp_path / name)
    for ask in (lambda: lock_folder(tmp_path).__enter__(), lambda: lease.refuse_in_use(tmp_path, waits=False)):
        with pytest.raises(ValueError, match=f"^run_dir={tmp_path} holds {name}, a pipe, socket or device; remove it"):
            ask()


def test_two_threads_of_one_process_are_two_writers(tmp_path, locks):
    with (
        lock_folder(tmp_path),
        pytest.raises(ValueError, match=rf"process {os.getpid()} on"),
        lock_folder(tmp_path),
    ):
        pass
    with lock_folder(tmp_path):
        pass


@pytest.mark.parametrize("holder", [ELSEWHERE, {}, {"host": platform.node(), "boot": "", "process": 1, "start": ""}])
def test_a_lease_of_another_machine_holds_for_two_minutes(tmp_path, holder, locks, monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.01)
    leave(tmp_path, 110, holder)
    with pytest.raises(ValueError, match=r"is in use by .*active 11\d s ago"), lock_folder(tmp_path):
        pass
    path = leave(tmp_path, 121, holder)
    with lock_folder(tmp_path):
        assert json.loads(path.read_text())["process"] == os.getpid()


@pytest.mark.parametrize("skew", [-1e6, 1e6])
def test_the_age_of_a_lease_does_not_depend_on_the_local_clock(tmp_path, skew, monkeypatch):
    """Both times are the file server's, here the kernel's."""
    now = time.time
    leave(tmp_path / "live", 1)
    leave(tmp_path / "stale", 125)
    monkeypatch.setattr(lease, "POLL", 0.01)
    monkeypatch.setattr(time, "time", lambda: now() + skew)
    with pytest.raises(ValueError, match="in use"), lock_folder(tmp_path / "live"):
        pass
    with lock_folder(tmp_path / "stale"):
        pass


def test_a_lease_is_renewed_while_its_process_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "RENEWAL", 0.01)
    with lock_folder(tmp_path):
        path = tmp_path / ".lease"
        os.utime(path, (0, 0))
        deadline = time.monotonic() + 20
        while path.stat().st_mtime == 0 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert path.stat().st_mtime > 0


def test_who_waits_takes_a_lease_once_it_is_stale_and_says_so(tmp_path, monkeypatch, capsys, locks):
    monkeypatch.setattr(lease, "POLL", 0.05)
    leave(tmp_path, 119.5)
    with lock_folder(tmp_path, waits=True):
        pass
    said = capsys.readouterr().err
    assert "in use by process 7 on elsewhere, which was active 120 s ago; waiting" in said
    assert len(said.splitlines()) == 1


def test_who_waits_gives_up_when_the_lease_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.05)
    path = leave(tmp_path, 60)
    renewal = threading.Timer(0.3, os.utime, [path])
    renewal.start()
    with (
        pytest.raises(ValueError, match="in use by another command: process 7 on elsewhere"),
        lock_folder(tmp_path, waits=True),
    ):
        pass
    renewal.join()


def test_who_waits_takes_a_folder_that_becomes_free(tmp_path, monkeypatch):
    monkeypatch.setattr(lease, "POLL", 0.05)
    path = leave(tmp_path, 60)
    removal = threading.Timer(0.3, path.unlink)
    removal.start()
    with lock_folder(tmp_path, waits=True):
        pass
    removal.join()


def test_of_two_machines_that_find_a_stale_lease_one_writes(tmp_path, monkeypatch):
    """The other one replaces the lease just after this process took it."""
    leave(tmp_path, 200)
    monkeypatch.setattr(lease, "POLL", 0.5)
    faster = threading.Timer(0.2, leave, [tmp_path, 0])
    faster.start()
    with pytest.raises(ValueError, match="process 7 on elsewhere"), lock_folder(tmp_path):
        pass
    faster.join()


def test_a_process_whose_folder_was_taken_over_ends_without_another_write(tmp_path):
    process = held(tmp_path, renewal=0.05)
    leave(tmp_path, 0)
    assert process.wait(20) == LOST
    assert b"is now written by process 7 on elsewhere" in process.stderr.read()
    assert json.loads((tmp_path / ".lease").read_text()) == ELSEWHERE


def test_a_disk_without_room_for_the_lease_is_named_and_nothing_is_left(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lease.json, "dump", full)
    with pytest.raises(OSError, match=r"No space left on device: '.*\.lease'"), lock_folder(tmp_path / "new"):
        pass
    with pytest.raises(OSError, match="No space left"), lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    with lock_folder(tmp_path / "new"):
        pass


# Commands


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("lease"))


@pytest.mark.parametrize("words", [("format=png",), ("format=npz",), ("format=grid",), ("task=denoise",)])
def test_a_second_generation_or_task_in_one_folder_is_refused_and_leaves_the_first_alone(checkpoint, tmp_path, words):
    config = configured("sample", tmp_path, f"ckpt={checkpoint}", "trainer=cpu", *words)
    config.out = str(tmp_path / "out")
    with lock_folder(tmp_path / "out"):
        before = sorted((tmp_path / "out").iterdir())
        with pytest.raises(ValueError, match=r"out=.*out is in use by another command"):
            sample.run_sample(config)
        assert sorted((tmp_path / "out").iterdir()) == before
    sample.run_sample(config)
    assert not {".lock", ".lease"} & {path.name for path in (tmp_path / "out").iterdir()}


@pytest.mark.parametrize("format", ["png", "npz"])
def test_a_finished_generation_is_shown_from_a_folder_in_use_or_without_write_permission(
    checkpoint, tmp_path, format, capsys
):
    config = configured("sample", tmp_path, f"ckpt={checkpoint}", "trainer=cpu", f"format={format}", "num_samples=2")
    config.out = str(tmp_path / "out")
    sample.run_sample(config)
    with lock_folder(tmp_path / "out"):
        before = os.stat(tmp_path / "out").st_mtime_ns
        sample.run_sample(config)
        assert "2 samples in" in capsys.readouterr().out.rpartition("all of them stored before")[0]
        assert os.stat(tmp_path / "out").st_mtime_ns == before, "no file was created or removed"
        config.gif = True
        with pytest.raises(ValueError, match="is in use by another command"):
            sample.run_sample(config)


def test_a_training_that_resumes_waits_for_the_lease_of_its_killed_process_elsewhere(small, monkeypatch, tmp_path):
    train.run_train(small())
    monkeypatch.setattr(lease, "POLL", 0.05)
    leave(tmp_path / "run", 119.5)
    with pytest.raises(ValueError, match=r"run_dir=.*process 7 on elsewhere"):
        train.run_train(small())
    train.run_train(small("resume.path=auto"))


def test_a_killed_training_is_resumed_at_once(tmp_path):
    words = [*SMALL, "run_dir=runs/x", "checkpoint_every_n_steps=1", "trainer.max_steps=100000"]
    first = Command("train.py", *words, folder=tmp_path)
    checkpoints_of(tmp_path, first, 2)
    second = Command("train.py", *words, folder=tmp_path)
    assert second.wait() == 2
    assert "is in use by another command: process " in second.communicate()[0]
    first.send_signal(signal.SIGKILL)
    first.wait()
    steps = int(list_checkpoints(tmp_path / "runs/x/checkpoints")[0].stem)
    third = Command("train.py", *words, "resume=auto", folder=tmp_path)
    checkpoints_of(tmp_path, third, steps + 2)
    third.send_signal(signal.SIGTERM)
    assert third.wait() == 143


def test_a_folder_in_use_is_refused_before_hydra_writes_in_it(tmp_path):
    """Hydra writes its own files before it calls the program."""
    other = held(tmp_path)
    before = sorted(tmp_path.iterdir())
    told = f"^run_dir={tmp_path} is in use by another command: process {other.pid} on"
    for words in ([f"hydra.run.dir={tmp_path}"], [f"resume.path={tmp_path}"]):
        with pytest.raises(ValueError, match=told):
            run_folder.add_run_folder(words, ROOT / "conf")
    assert sorted(tmp_path.iterdir()) == before
    other.communicate()
    assert run_folder.add_run_folder([f"hydra.run.dir={tmp_path}"], ROOT / "conf")


def test_the_lease_of_another_machine_is_refused_unless_the_run_is_resumed(tmp_path):
    leave(tmp_path, 5)
    with pytest.raises(ValueError, match="in use by another command: process 7 on elsewhere"):
        run_folder.add_run_folder([f"hydra.run.dir={tmp_path}"], ROOT / "conf")
    assert run_folder.add_run_folder([f"resume.path={tmp_path}"], ROOT / "conf")  # which waits for it
    leave(tmp_path, 300)
    assert run_folder.add_run_folder([f"hydra.run.dir={tmp_path}"], ROOT / "conf")


@pytest.mark.parametrize("subdir", [(), ("hydra.sweep.subdir=${name}_seed${seed}",)])
def test_a_job_of_a_sweep_in_a_folder_in_use_is_refused_before_hydra_writes_in_it(tmp_path, subdir):
    folder = tmp_path / ("digits_seed5" if subdir else "1")
    words = ["-m", "name=digits", "seed=4,5", f"hydra.sweep.dir={tmp_path}", *subdir]
    leave(folder, 5)
    with pytest.raises(ValueError, match=f"^run_dir={folder} is in use by another command: process 7 on elsewhere"):
        run_folder.add_run_folder(words, ROOT / "conf")
    assert [*tmp_path.iterdir()] == [folder]
    assert run_folder.add_run_folder(
        [word.replace("seed=4,5", "seed=4") for word in words], ROOT / "conf"
    )  # another folder


def test_a_folder_in_use_is_known_by_its_interpolated_name(tmp_path):
    leave(tmp_path / "digits", 5)
    with pytest.raises(ValueError, match=r"digits is in use by another command: process 7"):
        run_folder.add_run_folder(["name=digits", f"hydra.run.dir='{tmp_path}/${{name}}'"], ROOT / "conf")
