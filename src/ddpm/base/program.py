"""Location of train.py, sample.py, evaluate.py and conf/: the checkout, or the installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "program"
PROGRAM = INSTALLED if INSTALLED.is_dir() else PACKAGE.parents[1]
CONF = PROGRAM / "conf"
"""One folder per configuration group, one file per option."""
