"""What computes a number: the command, the code with its changes, the libraries, the processor and the precision."""

import dataclasses
import functools
import hashlib
import json
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import ddpm
from ddpm.base.atomic import write_atomically
from ddpm.base.program import PROGRAM

MAX_PATCH_BYTES = 1 << 20
CODE = ("src", "conf", "train.py", "sample.py", "evaluate.py")
"""What of a checkout determines a number, and may be in a patch."""
NOT_RECORDED = "not recorded"
LIBRARIES = ("torch", "torchvision", "torchmetrics", "torch-fidelity", "numpy", "lightning")


def library_versions() -> dict[str, str]:
    """Versions of the libraries that influence the values."""
    return {"ddpm": ddpm.__version__, "python": platform.python_version()} | {name: version(name) for name in LIBRARIES}


def device_name(device: torch.device | str) -> str:
    """'cuda: NVIDIA H100 80GB HBM3', or 'cpu: x86_64'."""
    device = torch.device(device)
    return f"{device.type}: {torch.cuda.get_device_name(device) if device.type == 'cuda' else platform.machine()}"


def processor() -> str:
    """The name of the CPU with the capability of its kernels, as 'AMD EPYC 7763, AVX2', then that of each GPU."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    found = [f"{[*names, platform.processor() or platform.machine()][0]}, {torch.backends.cpu.get_cpu_capability()}"]
    if torch.cuda.is_available():
        for number in range(torch.cuda.device_count()):
            major, minor = torch.cuda.get_device_capability(number)
            found.append(f"{torch.cuda.get_device_name(number)}, sm_{major}{minor}")
    return "; ".join(dict.fromkeys(found))


def typed_command() -> str:
    """The command of this process, quoted for a shell. Short forms are not expanded, unlike in `sys.argv`."""
    return shlex.join(sys.orig_argv)


def git(*arguments: str) -> bytes | None:
    """The output of git in the program's folder, or None if git fails or does not exist. Variables of the user that
    name another repository have no effect."""
    command = ["git", "-C", str(PROGRAM), *arguments]
    variables = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    try:
        found = subprocess.run(command, capture_output=True, timeout=20, env=variables | {"GIT_OPTIONAL_LOCKS": "0"})
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout if found.returncode == 0 or "--no-index" in arguments else None


@functools.cache
def code_version() -> tuple[str, bytes]:
    """The commit, and the patch of changed and new files of `CODE`; computed once in a process.

    An installed package may lie within a repository of something else, so this file itself must be tracked.
    """
    tracked = git("ls-files", "--error-unmatch", str(Path(__file__)))
    commit = None if tracked is None else git("rev-parse", "HEAD")
    if commit is None:
        return "none", b""
    plain = ("--no-color", "--no-ext-diff", "--no-textconv", "--binary")
    patch = git("diff", *plain, "HEAD", "--", *CODE) or b""
    for name in (git("ls-files", "--others", "--exclude-standard", "-z", "--", *CODE) or b"").split(b"\0")[:-1]:
        patch += git("diff", *plain, "--no-index", "--", os.devnull, os.fsdecode(name)) or b""
    changed = f", changed: {hashlib.sha256(patch).hexdigest()[:8]}" if patch else ""
    return commit.decode().strip() + changed, patch


def commit_name() -> str:
    """The hash of the commit; ", changed: " and a digest of the patch follow if files are changed."""
    return code_version()[0]


@dataclass(frozen=True)
class Environment:
    """The environment, which should not change a value by more than rounding."""

    device: str
    precision: str
    versions: Mapping[str, str] = field(default_factory=library_versions)
    num_processes: int | str = 1
    processor: str = field(default_factory=processor)
    command: str = field(default_factory=typed_command)
    commit: str = field(default_factory=commit_name)


def environment_of(trainer: Any) -> Environment:
    """Of one of Lightning's trainers."""
    return Environment(device_name(trainer.strategy.root_device), str(trainer.precision), trainer.world_size)


ADDED = dict.fromkeys(("num_processes", "processor", "command", "commit"), NOT_RECORDED)
"""Fields that earlier versions did not record."""


def write_environment(environment: Environment, folder: Path, name: str) -> None:
    """Write `name`.json, and `name`.patch if files are changed, to the folder; call it on one rank.

    A patch of more than MAX_PATCH_BYTES is left out; the commit's digest still tells it from others.
    """
    _, patch = code_version()
    content = dataclasses.asdict(environment)
    if patch and len(patch) > MAX_PATCH_BYTES:
        content["patch"] = f"left out: {len(patch)} bytes, more than {MAX_PATCH_BYTES}"
    elif patch:
        content["patch"] = f"{name}.patch"
        write_atomically(folder / f"{name}.patch", patch)
    write_atomically(folder / f"{name}.json", (json.dumps(content, indent=2) + "\n").encode())
