"""What all tests share: one thread each, configurations composed as the commands do, and a network of few weights."""

import gc
import itertools
import json
import shutil
import struct
import time
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from shared_work import remember_conf, skip_syncs
from small_runs import SMALL, THREADS, configured
from wandb.proto.wandb_internal_pb2 import Record

NUMBERS = itertools.count()

remember_conf()
skip_syncs()
torch.set_num_threads(THREADS)  # before any fixture computes: what is forked would wait for this process's threads


def pytest_collection_finish():
    """What is loaded stays: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(autouse=True)
def alone(monkeypatch, tmp_path_factory):
    """One thread, since two that wait for each other on a busy core are slower; and no cache of an earlier test."""
    monkeypatch.setenv("OMP_NUM_THREADS", str(THREADS))
    monkeypatch.setenv("DDPM_CACHE", str(tmp_path_factory.getbasetemp() / f"cache{next(NUMBERS)}"))
    monkeypatch.setenv("WANDB_MODE", "offline")
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def config(tmp_path):
    """`config("train", "schedule=linear", ...)`: the configuration of a command, with its folder in tmp_path."""

    return lambda name, *words: configured(name, tmp_path / "run", *words)


@pytest.fixture
def small(config):
    """A training configuration that runs in seconds: `small("objective=x0", ...)`."""
    return lambda *overrides: config("train", *SMALL, *overrides)


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """`run_of("objective=x0", ...)`: the folder of a small run, trained once for all tests. Not to be changed."""

    @cache
    def trained(*words):
        from ddpm.commands import train  # for the process that only hands out the tests need not load it

        config = configured("train", tmp_path_factory.mktemp("run"), *SMALL, *words)
        train.run_train(config)
        return Path(config.run_dir)

    return trained


@pytest.fixture
def copied(run_of, tmp_path):
    """`copied("objective=x0", ..., to="runs/mine")`: a copy of it in tmp_path, by default as `run`."""

    def copy(*words, to="run"):
        return Path(shutil.copytree(run_of(*words), tmp_path / to, symlinks=True))

    return copy


def records(path):
    """Every record of a .wandb file: LevelDB's log format after a header of seven bytes."""
    data, record = path.read_bytes(), b""
    place = 7
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no frame header fits in the rest of a block
            place += 32768 - place % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[place : place + 7])
        if place + 7 + length > len(data):  # it is still being written
            return
        record += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or last part
            yield Record.FromString(record)
            record = b""


@pytest.fixture(scope="session")
def offline_run():
    """`offline_run(folder)`: what the file of a finished W&B run in a folder says; number: of several, by their age."""

    def read(folder, number=0):
        file = sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda path: path.stat().st_mtime)[number]
        run = SimpleNamespace(file=file, about=None, records=[], config={}, steps=[], exits=[], saved=[])
        deadline = time.monotonic() + 20  # W&B's own process may still write
        while not any(record.HasField("exit") for record in run.records) and time.monotonic() < deadline:
            run.records = list(records(file))
        for record in run.records:
            run.about = record.run if record.HasField("run") else run.about
            for item in [*record.run.config.update, *record.config.update]:
                run.config[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
            steps = [each for each in record.history.item if "trainer/global_step" in each.nested_key]
            run.steps += [json.loads(each.value_json) for each in steps]
            run.exits += [record.exit.exit_code] if record.HasField("exit") else []
            run.saved += [each.path for each in record.files.files]
        return run

    return read
