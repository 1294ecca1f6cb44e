"""How the processes of a run are started, and how they agree on a run folder before they can communicate.

Lightning's launcher passes the folder to its child processes; torchrun has a store, SLURM a shared disk.
"""

import hashlib
import importlib.util
import os
import shutil
import socket
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from ddpm.base.exit_codes import LOST

PATIENCE = 300  # seconds that a rank waits for the first


def is_first_process() -> bool:
    """Whether this process makes the choices: rank 0, or the one that will start the others."""
    numbers = ("RANK",) if by_torchrun() else ("SLURM_PROCID",) if by_slurm() else ("NODE_RANK", "LOCAL_RANK")
    return all(int(os.environ.get(number, "0")) == 0 for number in numbers)


def by_torchrun() -> bool:
    return "TORCHELASTIC_RUN_ID" in os.environ


def by_srun() -> bool:
    """Whether this is a task of a job step, not a batch script or a shell of salloc."""
    return "SLURM_STEP_NUM_TASKS" in os.environ


def by_slurm() -> bool:
    """Whether srun started this process together with others."""
    return by_srun() and int(os.environ["SLURM_STEP_NUM_TASKS"]) > 1 and not by_torchrun()


def by_lightning() -> bool:
    """Whether another process of this run started this one."""
    return int(os.environ.get("LOCAL_RANK", "0")) > 0 and not (by_torchrun() or by_slurm())


def refuse_launcher(words: list[str]) -> None:
    """Raise ValueError for a Hydra launcher that is not available on this machine."""
    requested = next((word.partition("=")[2] for word in words if word.startswith("hydra/launcher=submitit")), None)
    if requested and importlib.util.find_spec("submitit") is None:
        raise ValueError(f"hydra/launcher={requested} needs the submitit launcher: pip install '.[slurm]'")
    if requested == "submitit_slurm" and shutil.which("srun") is None:
        raise ValueError(
            "hydra/launcher=submitit_slurm finds no srun: run it where jobs are submitted; "
            "hydra/launcher=submitit_local starts the jobs on this machine"
        )


def share_choice(choose: Callable[[], str], what: str) -> str:
    """The value chosen by the first process, on all processes of a run. what: key of this choice."""
    key = f"ddpm_{hashlib.sha256(what.encode()).hexdigest()[:16]}"
    if by_torchrun():
        return through_store(choose, key)
    if by_slurm():
        return through_file(choose, key)
    if not (by_lightning() and key in os.environ):
        os.environ[key] = choose()
    return os.environ[key]


def through_store(choose: Callable[[], str], name: str) -> str:
    """Share a choice through the store of torchrun's agents."""
    from torch.distributed import TCPStore

    from ddpm.runs.interruption import connecting

    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    hosts = is_first_process() and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"
    key = f"{name}/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}"
    wait_for_address(address)
    with connecting():
        store = TCPStore(address, port, is_master=hosts, timeout=timedelta(seconds=PATIENCE))
        if is_first_process():
            store.set(key, choose())
        return store.get(key).decode()


def wait_for_address(name: str) -> None:
    """Wait until the network knows the machine of the first process, and say so: a scheduler may announce it late.
    Raises ValueError after a timeout."""
    begin, is_told = time.monotonic(), False
    while True:
        try:
            socket.getaddrinfo(name, None)
            return
        except (OSError, UnicodeError) as error:
            if time.monotonic() - begin > PATIENCE:
                raise ValueError(
                    f"MASTER_ADDR={name} is unknown to the network after {PATIENCE} s ({error}): set it to the name or "
                    "number of the machine of rank 0"
                ) from error
            if not is_told:
                print(f"MASTER_ADDR={name} is unknown to the network ({error}): waiting up to {PATIENCE} s", flush=True)
            is_told = True
        time.sleep(0.2)


def through_file(choose: Callable[[], str], key: str) -> str:
    """Share a choice through the file runs/.slurm/JOB.STEP.RESTART.KEY. Raises ValueError after a timeout."""
    from ddpm.base.atomic import write_atomically

    names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
    file = Path("runs/.slurm") / ".".join([*(os.environ.get(name, "0") for name in names), key])
    if is_first_process():
        write_atomically(file, choose().encode())
    deadline = time.monotonic() + PATIENCE
    while not file.exists():
        if time.monotonic() > deadline:
            raise ValueError(f"rank 0 did not write {file} within {PATIENCE} s: the ranks must share a disk")
        time.sleep(0.2)
    return file.read_text()


def follow_parent() -> None:
    """End this process when its parent process is gone, so that no process remains."""
    if not (by_lightning() or by_torchrun()):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        print(f"rank {os.environ['LOCAL_RANK']} ends, because the process that started it is gone", file=sys.stderr)
        os._exit(LOST)

    threading.Thread(target=watch, daemon=True).start()
