"""Location of train.py, sample.py, evaluate.py and conf/: the checkout, or the installed package."""

import os
import shlex
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "program"
PROGRAM = INSTALLED if INSTALLED.is_dir() else PACKAGE.parents[1]
CONF = PROGRAM / "conf"
"""One folder per configuration group, one file per option."""
SCRIPTS = ("train", "sample", "evaluate")
"""The programs in PROGRAM, NAME.py."""


def shell_command(program: str) -> str:
    """What to type for a program of this environment: its name if the shell looks for it there, else its path."""
    path = Path(sys.executable).with_name(program)
    is_found = str(path.parent) in os.get_exec_path() or not path.exists()
    return program if is_found else shlex.quote(min(str(path), os.path.relpath(path), key=len))
