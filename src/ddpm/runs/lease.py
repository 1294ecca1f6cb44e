"""One writer per folder: a lock of the system, and a lease for disks on which machines do not see each other's locks.

The lease is the file .lease, which names the process that writes in the folder. The process renews it every 20 s. It is
stale after two minutes, by the clock of the file server. The lease of a process of this machine ends with the process.
"""

import fcntl
import json
import os
import platform
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NamedTuple

from ddpm.base.exit_codes import LOST
from ddpm.base.system_errors import naming

LEASE, LOCK = ".lease", ".lock"
RENEWAL, STALE = 20.0, 120.0
POLL = 1.0
"""Seconds between looks at a lease that is waited for, and before a lease of another machine counts as taken over."""


class Lease(NamedTuple):
    """holder: host, boot, process and start of the process; empty if the file is damaged. renewed: its mtime."""

    holder: dict[str, Any]
    renewed: float

    @property
    def is_of_this_machine(self) -> bool:
        here = holder_of(0)
        return here["boot"] != "" and all(self.holder.get(name) == here[name] for name in ("host", "boot"))

    def has_ended(self, now: float) -> bool:
        if self.is_of_this_machine:
            return self.holder != holder_of(self.holder["process"])
        return now - self.renewed > STALE

    def describe(self, now: float) -> str:
        name = "process {process} on {host}".format(**self.holder) if self.holder else "an unknown process"
        return f"{name}, which was active {max(now - self.renewed, 0):.0f} s ago"


@contextmanager
def lock_folder(
    folder: Path, field: str = "run_dir=", remedy: str = "choose another folder", waits: bool = False
) -> Iterator[None]:
    """Lock the folder against other writers while this process lives. Child processes do not inherit the lock.

    field, remedy: text before the folder and at the end of error messages. waits: wait for the lease of another machine
    as long as it is not renewed; the process of a requeued job may be gone, and its lease not yet stale.
    """
    is_new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    path, done = folder / LEASE, threading.Event()
    try:
        with open(folder / LOCK, "a") as lock:
            with naming(path):
                claim(lock, path, f"{field}{folder}", remedy, waits)
            renewals = threading.Thread(target=renew, args=(path, done), daemon=True)
            renewals.start()
            try:
                yield
            finally:
                done.set()
                renewals.join()
                release(path)
    finally:
        if is_new:
            with suppress(OSError):
                folder.rmdir()  # if an error left it empty


def refuse_in_use(folder: Path, waits: bool) -> None:
    """Raise ValueError if another process writes in the folder, without a change of any file. waits: see `lock_folder`.

    Call it before Hydra writes its files. The local clock may differ from that of the file server, so `lock_folder`
    decides in the end.
    """
    found, now = read_lease(folder / LEASE), time.time()
    if found and not found.has_ended(now) and (found.is_of_this_machine or not waits):
        raise in_use(f"run_dir={folder}", found.describe(now), "choose another folder")


def in_use(name: str, who: str, remedy: str) -> ValueError:
    return ValueError(f"{name} is in use by another command: {who}; wait for it or {remedy}")


def release(path: Path) -> None:
    with suppress(OSError):  # the folder may be removed, or the disk gone
        if is_own(path):
            path.with_name(LOCK).unlink(missing_ok=True)
            path.unlink()


def has_leftovers(folder: Path) -> bool:
    """Whether a killed process of this machine left its lock in a folder that can be written."""
    found = read_lease(folder / LEASE)
    is_left = found.is_of_this_machine and found.has_ended(0.0) if found else (folder / LOCK).exists()
    return is_left and os.access(folder, os.W_OK)


def claim(lock: IO[str], path: Path, name: str, remedy: str, waits: bool) -> None:
    """Write the lease of this process. Raises ValueError if the folder is in use."""
    first: Lease | None = None
    while True:
        is_free, found, now = try_lock(lock), read_lease(path), server_time(lock)
        if is_free and (found is None or found.has_ended(now)):
            if take(path, found):
                return
            continue
        if found and not found.is_of_this_machine and waits:
            waits = found.renewed == (first or found).renewed and now - found.renewed < 2 * STALE
        if not waits or found is None or found.is_of_this_machine:
            who = found.describe(now) if found else "a process that wrote no lease"
            raise in_use(name, who, remedy)
        if first is None:
            message = (
                f"{name} is in use by {found.describe(now)}; waiting until it is active again, or for {STALE:.0f} s"
            )
            print(message, file=sys.stderr, flush=True)
        first = first or found
        time.sleep(POLL)


def try_lock(lock: IO[str]) -> bool:
    """Whether no other process holds the lock; also true on disks that have no locks."""
    try:
        fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # depends on the system
        return False
    except OSError:
        pass
    return True


def server_time(lock: IO[str]) -> float:
    """The time by the clock that also dates the leases. The local clock may differ."""
    os.utime(lock.fileno())
    return os.fstat(lock.fileno()).st_mtime


def read_lease(path: Path) -> Lease | None:
    """The lease, or None if there is none. The file is opened, because a network disk caches the times of others."""
    try:
        with open(path, "rb") as file:
            text, renewed = file.read(4096), os.fstat(file.fileno()).st_mtime
    except FileNotFoundError:
        return None
    with suppress(ValueError, RecursionError):
        holder = json.loads(text)
        if isinstance(holder, dict) and holder.keys() == holder_of(0).keys() and isinstance(holder["process"], int):
            return Lease(holder, renewed)
    return Lease({}, renewed)


def take(path: Path, ended: Lease | None) -> bool:
    """Write the lease of this process in place of one that has ended. False if another process was faster."""
    if ended:
        path.unlink(missing_ok=True)
    try:
        with open(path, "x") as file:
            json.dump(holder_of(os.getpid()), file)
    except FileExistsError:
        return False
    except OSError:
        for each in (path, path.with_name(LOCK)):
            with suppress(OSError):
                each.unlink()
        raise
    if ended and not ended.is_of_this_machine:
        time.sleep(POLL)  # another machine may have found the same lease ended, and replace this one
    return is_own(path)


def is_own(path: Path) -> bool:
    found = read_lease(path)
    return found is not None and found.holder == holder_of(os.getpid())


def renew(path: Path, done: threading.Event) -> None:
    """Renew the lease until `done`. If another process took the folder over, as after a long pause, end this one."""
    while not done.wait(RENEWAL):
        with suppress(OSError):  # the next renewal may succeed
            found = read_lease(path)
            if found and found.holder != holder_of(os.getpid()):
                who = found.describe(found.renewed)
                print(f"error: {path.parent} is now written by {who}; this command ends", file=sys.stderr, flush=True)
                os._exit(LOST)
            if found:
                os.utime(path)


def holder_of(process: int) -> dict[str, Any]:
    """A process of this machine. Another process with the same number has another start."""
    boot = start = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        start = "" if state == "Z" else fields[18]
    return {"host": platform.node(), "boot": boot, "process": process, "start": start}
