"""Console output of a command, without the advice that libraries print."""

import logging
import warnings
from typing import Any

NOISE = (
    *("GPU available", "TPU available", "Tip:", "`Trainer", "Total length of `list`", "`weights_only`"),
    *("You are using", "Restor", "Initializing distributed", "distributed_backend"),
)


def quiet_libraries() -> None:
    """Print only warnings and messages of this project, each once and without a prefix."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        for logger in [logging.getLogger(name), *_children(name)]:
            logger.handlers.clear()  # Hydra's root handler prints their messages
            logger.propagate = True
    for handler in logging.getLogger().handlers:
        handler.addFilter(lambda record: not any(noise in record.getMessage() for noise in NOISE))
    warnings.formatwarning = print_warning
    warnings.filterwarnings("ignore", message=".*LeafSpec.*", category=FutureWarning)
    warnings.filterwarnings("ignore", message=".*exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*Total length of `list` across ranks is zero.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*This DataLoader will create.*")  # more workers than CPUs
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")  # steps count, not epochs
    warnings.filterwarnings("ignore", message=".*all_gather is deprecated.*")  # Lightning's call
    warnings.filterwarnings("ignore", message=".*Grad strides do not match.*")  # 1 x 1 kernels have several layouts


def say(text: str) -> None:
    """Print a text, and write it to the log file of the run."""
    print(text, flush=True)
    write_to_log(text)


def write_to_log(text: str) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            handler.handle(logging.LogRecord("ddpm", logging.INFO, "", 0, text.strip(), None, None))


def print_warning(message: Warning | str, category: type[Warning], filename: str, lineno: int, *_: Any) -> str:
    """Format a warning as its message, without the location in the code."""
    return f"note: {message}\n" if category is UserWarning else f"{filename}:{lineno}: {category.__name__}: {message}\n"


def _children(name: str) -> list[logging.Logger]:
    known = logging.Logger.manager.loggerDict
    return [logging.getLogger(each) for each in list(known) if each.startswith(name + ".")]
