"""Runs the main function of a command: prints what it is about to do, and its errors as one line."""

import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from ddpm.base import exit_codes
from ddpm.base.memory import is_out_of_memory
from ddpm.base.program import SCRIPTS
from ddpm.base.system_errors import describe
from ddpm.checkpoint.trust import take_trust
from ddpm.commands.config_errors import config_error
from ddpm.commands.defaults import explain_default, refuse_other_kinds
from ddpm.commands.no_effect import refuse_what_has_no_effect
from ddpm.commands.options import help_text
from ddpm.commands.short_forms import expand_short_forms
from ddpm.config.wiring import name_source
from ddpm.runs import launch
from ddpm.runs.console import print_warning, say
from ddpm.runs.interruption import end_children, heed_signals
from ddpm.runs.run_folder import without_unused_folders

# Kept in a variable of its own, because HYDRA_FULL_ERROR is changed below and inherited by the processes of a run.
TRACEBACK = os.environ.setdefault("DDPM_TRACEBACK", os.environ.get("HYDRA_FULL_ERROR", "0")) == "1"
USER_ERRORS = (ValueError, FloatingPointError, OSError, HydraException, OmegaConfBaseException)


@heed_signals()
@without_unused_folders()
def run_command(
    main: Callable[[], Any],
    conf: Path,
    name: str,
    prepare: Callable[[list[str], Path], list[str]] = lambda arguments, conf: arguments,
) -> None:
    """Run a Hydra main. Errors that a user can cause are printed without traceback, with their exit code.

    prepare: changes the command-line arguments before Hydra parses them.
    """
    if {"--help", "-h"} & set(sys.argv[1:]):
        print(help_text(conf, name))
        return
    typed = sys.argv[1:]
    warnings.formatwarning = print_warning
    launch.follow_parent()
    if "${" in str(cwd := Path.cwd()):
        exit_with_error(f"the path of the working directory must not contain ${{, which Hydra would interpolate: {cwd}")
    os.environ["HYDRA_FULL_ERROR"] = "1"  # makes Hydra raise errors instead of printing them and exiting
    try:
        sys.argv[1:] = prepare(expand_short_forms(take_trust(typed), conf, name), conf)
        main()
    except USER_ERRORS as error:
        if TRACEBACK:
            raise
        is_config = isinstance(error, HydraException) or "Config group override" in str(error)  # model=null
        exit_with_error(config_error(error, conf, name, typed=typed) if is_config else describe(error, folder()), error)
    finally:
        del os.environ["HYDRA_FULL_ERROR"]


def run_job(work: Callable[[DictConfig], None], config: DictConfig) -> None:
    """Call `work` with the configuration and end all child processes.

    Errors are caught here, so that Hydra does not report them a second time.
    """
    name, overrides = HydraConfig.get().job.config_name, list(HydraConfig.get().overrides.task)
    try:
        missing = [key for key in config if OmegaConf.is_missing(config, key)]
        missing += sorted(OmegaConf.missing_keys(config.data)) if name == "train" and not config.dry_run else []
        if missing:
            raise ValueError(f"{missing[0]} must be given, as {missing[0]}=VALUE; --help describes it")
        if launch.is_first_process() and (line := first_line(config, name)):
            say(line)
        refuse_other_kinds(config, name, overrides)
        refuse_what_has_no_effect(config, overrides)
        work(config)
        end_processes()
    except USER_ERRORS as error:
        if TRACEBACK:
            raise
        missing = isinstance(error, MissingMandatoryValue)
        message = f"{error.full_key} must be given, as {error.full_key}=VALUE" if missing else describe(error, folder())
        message = explain_default(config, overrides, name_source(config, message))
        exit_with_error(message, error)
    except (RuntimeError, MemoryError) as error:
        lost_worker = re.match(r"DataLoader worker .*", str(error))
        if TRACEBACK or not (lost_worker or is_out_of_memory(error)):
            raise
        if lost_worker:
            exit_with_error(
                f"a process that decodes images is gone ({lost_worker[0].rstrip(' .')}); the system's log states the "
                "cause, as too little memory for data.num_workers. A training continues with resume=auto",
                exit_codes.ProcessLost(),
            )
        reason = (str(error).splitlines() or ["an allocation failed"])[0]
        size = OmegaConf.select(config, "data.size") or "as stored"
        remedy = f"Use a smaller batch_size, or smaller images (data.size: {size})"
        exit_with_error(f"too little memory: {reason}. {remedy}", error)
    finally:
        end_children()


def first_line(config: DictConfig, name: str) -> str:
    """What a command is about to do, before anything is imported that takes seconds; "" if it has no subject."""
    if name not in SCRIPTS:
        return ""  # said before (ddpm.__main__)
    about = [config.get("ckpt") or config.get("images")]
    if name == "train":
        experiment = HydraConfig.get().runtime.choices.get("experiment")
        about = [f"experiment={experiment} data={config.data.name}", f"in {config.run_dir}"]
    said = ", ".join(str(each) for each in about if each)
    return f"{name}: {said}; importing torch and Lightning" if said else ""


def end_processes() -> None:
    """Close the process group that Lightning leaves open; its threads can abort a process at exit."""
    from torch import distributed

    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()


def folder() -> str:
    """The folder in which Hydra writes."""
    words = (word.partition("=") for word in sys.argv)
    return next((value for name, _, value in words if re.fullmatch(r"hydra\.(run|sweep)\.dir", name)), str(Path.cwd()))


def exit_with_error(message: str, error: BaseException | None = None) -> NoReturn:
    """error: determines the exit code, and its notes are printed; None: a mistake in the command."""
    message = "\n".join([message, *getattr(error, "__notes__", ())])
    print(f"error: {message}\n(HYDRA_FULL_ERROR=1 shows the traceback)", file=sys.stderr)
    sys.exit(exit_codes.exit_code(error))
