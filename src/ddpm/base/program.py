"""Where train.py, sample.py, evaluate.py and conf/ lie: in the checkout, or inside the installed package."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
INSTALLED = PACKAGE / "program"
PROGRAM = INSTALLED if INSTALLED.is_dir() else PACKAGE.parents[1]
CONF = PROGRAM / "conf"
"""One folder a group, one file an option."""
