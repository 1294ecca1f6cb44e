"""The other processes of a run: connect to them, and say which one is waited for.

Each process stores how many collective operations it has started, beside the store of torch's rendezvous. A process
that has started fewer than another is the one that the other waits for.
"""

import contextlib
import itertools
import os
import socket
import threading
import time
from datetime import timedelta
from functools import partial
from typing import Any

import torch.distributed as dist
from torch.distributed import TCPStore, distributed_c10d

from ddpm.base import check
from ddpm.base.exit_codes import ProcessLost
from ddpm.runs.interruption import connecting

EVERY = 10  # seconds between two reports of a process
PATIENCE = 60  # seconds without progress after which it is named
ANSWER = timedelta(seconds=30)
"""How long the store may take to answer."""


def connect_with(strategy: Any, timeout: timedelta) -> None:
    """Let one of Lightning's strategies connect by `connect`. timeout: how long each operation waits for others."""
    port = os.environ.get("MASTER_PORT", "1")
    check.integer("MASTER_PORT", int(port) if port.isdecimal() else port, 1, 65535)
    strategy._timeout = timeout
    strategy.setup_environment = partial(connect, strategy)  # a function that can be pickled, for ddp_spawn


def connect(strategy: Any) -> None:
    """Lightning's `setup_environment` of a strategy of several processes, with one-line errors."""
    strategy.set_world_ranks()
    environment = strategy.cluster_environment
    address, port = environment.main_address, environment.main_port
    if not dist.is_initialized():
        place = (address, port, environment.global_rank(), environment.world_size())
        threading.Thread(target=report, args=place, daemon=True).start()
    try:
        with connecting():
            type(strategy).setup_environment(strategy)
    except dist.DistStoreError as error:
        waited = strategy._timeout.total_seconds() / 60
        raise ProcessLost(
            f"not all processes have connected to {address}:{port} within limits.timeout_minutes={waited:g}; the "
            "messages of the others state the cause"
        ) from error
    except dist.DistNetworkError as error:
        if "EADDRINUSE" in str(error):
            raise ValueError(
                f"MASTER_PORT={port} is taken by another program: set it to a free port, or unset it"
            ) from error
        raise ValueError(
            f"MASTER_ADDR={address} MASTER_PORT={port} cannot be reached: {str(error).splitlines()[0]}"
        ) from error


def report(address: str, port: int, rank: int, world_size: int) -> None:
    """Tell the other processes how far this one is, and print which one is waited for, until the run ends."""
    begin = time.monotonic()
    since: Seen = {}
    reports: dict[int, tuple[str, float]] = {}
    host = socket.gethostname()
    keys = [f"ddpm/peers/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}/{each}" for each in range(world_size)]
    with contextlib.suppress(RuntimeError):  # the store goes with the first process
        time.sleep(EVERY)
        while (store := client(address, port)) is None:
            if time.monotonic() - begin > PATIENCE:
                print(f"rank {rank} on {host} waits for rank 0, which is to listen at {address}:{port}", flush=True)
                begin = float("inf")
        for number in itertools.count():
            store.set(keys[rank], f"{num_started()} {host} {number}")
            texts = [store.get(key).decode() if store.check([key]) else "-1" for key in keys]
            found = [text.split(" ") for text in texts]
            now = time.monotonic()
            counts = [int(count) - is_silent(each, texts, reports, now) for each, (count, *_) in enumerate(found)]
            late = overdue(counts, since, now)
            if late and rank == counts.index(max(counts)):
                where = (f" on {found[k][1]}" if len(found[k]) > 1 else ", which has not connected" for k in late)
                names = " and ".join(f"rank {each}{place}" for each, place in zip(late, where, strict=True))
                print(f"rank {rank} on {host} waits for {names}", flush=True)
            time.sleep(EVERY)


def is_silent(rank: int, texts: list[str], reports: dict[int, tuple[str, float]], now: float) -> bool:
    """Whether a process has stopped to report, so that it may hang within an operation that it has started.

    texts: the last report of each. reports: the last report of a rank, and when it was first seen; changed in place.
    """
    if reports.get(rank, ("", 0))[0] != texts[rank]:
        reports[rank] = (texts[rank], now)
    return texts[rank] != "-1" and now - reports[rank][1] > 3 * EVERY


Seen = dict[int, tuple[int, float]]


def overdue(counts: list[int], since: Seen, now: float) -> list[int]:
    """The ranks that others have waited for since `PATIENCE` seconds, each once per wait.

    counts: how far each rank is; -1 if it has not connected. since: the count at which a rank is behind, and the time
    at which this was first seen; changed in place.
    """
    for rank, count in enumerate(counts):
        if count == max(counts):
            since.pop(rank, None)
        elif rank not in since or since[rank][0] != count:
            since[rank] = (count, now)
    late = [rank for rank, (_, begin) in since.items() if now - begin >= PATIENCE]
    since.update({rank: (counts[rank], float("inf")) for rank in late})
    return late


def client(address: str, port: int) -> TCPStore | None:
    """A connection to the store of the rendezvous; None if no process offers it yet."""
    try:
        return TCPStore(address, port, is_master=False, wait_for_workers=False, timeout=ANSWER)
    except RuntimeError:
        time.sleep(1)
        return None


def num_started() -> int:
    """The number of collective operations that this process has started, over all groups."""
    return sum(group._get_sequence_number_for_group() for group in list(distributed_c10d._world.pg_map))
