"""Location of train.py, sample.py, evaluate.py and conf/: the checkout, or the installed package."""

import os
import shlex
import shutil
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "program"
PROGRAM = INSTALLED if INSTALLED.is_dir() else PACKAGE.parents[1]
CONF = PROGRAM / "conf"
"""One folder per configuration group, one file per option."""
SCRIPTS = ("train", "sample", "evaluate")
"""The programs in PROGRAM, NAME.py."""


def typed(program: str) -> str:
    """What to type for a program of this environment: its name, or its path if the shell finds none or another one."""
    path, found = Path(sys.executable).with_name(program), shutil.which(program)
    is_found = found and Path(found).parent.resolve() == path.parent.resolve()
    return program if is_found or not path.exists() else shlex.quote(min(str(path), os.path.relpath(path), key=len))
