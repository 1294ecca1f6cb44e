"""A Weights & Biases run that never stops a training: offline where there is no key or no network."""

import json
import netrc
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn

from ddpm.base import check
from ddpm.base.atomic import write_atomically
from ddpm.base.untrusted import json_file

IDENTITY = "wandb_run.json"
started: list[wandb.Run] = []  # by this process, and not finished


@contextmanager
def finished_runs() -> Iterator[None]:
    """Finishes the runs that are started within it, and no others: as failed if an exception ends it, and with the log
    of their folder, in place of the console with all redraws of a progress bar."""
    earlier, code = len(started), 0
    try:
        yield
    except BaseException as error:
        code = error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1
        raise
    finally:
        while len(started) > earlier:
            run = started.pop()
            try:
                for log in Path(run.settings.root_dir).glob("*.log"):
                    run.save(shutil.copy(log, run.dir), base_path=run.dir, policy="end", glob=False)
                run.finish(exit_code=code)
            except Exception as error:  # the training itself is done
                rank_zero_warn(f"the W&B run in {run.dir} could not be finished: {error}")


def has_key() -> bool:
    """Whether wandb would find an API key: in the environment or in the netrc file that `wandb login` writes."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    file = Path(os.environ.get("NETRC", Path.home() / ".netrc"))
    try:
        return netrc.netrc(str(file)).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def wandb_logger(
    project: str,
    name: str | None,
    group: str | None,
    tags: Sequence[str] | None,
    save_dir: str,
    offline: bool | None,
    init_timeout: float,
    resumes: str | None = None,
    labels: dict[str, Any] | None = None,
) -> WandbLogger:
    """offline: True, False, or None for offline if there is no key or the network does not answer in time.

    init_timeout: seconds. resumes: what the training goes on from, if anything; its numbers then go on in the run that
    save_dir names. labels: in place of name, group and tags that are None. Only the first process makes a run, to be
    finished by `finished_runs`; it leaves its identity in save_dir/wandb_run.json.
    """
    if rank_zero_only.rank != 0:
        return WandbLogger(project=project, save_dir=save_dir, offline=True)
    file, run_id = Path(save_dir) / IDENTITY, None
    if resumes is not None and file.exists():
        earlier = identity_in(file)
        run_id, name = earlier["run_id"], name or earlier["name"]
    offline_now = not has_key() if offline is None else offline
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        offline_now = True
    given = {"name": name, "group": group, "tags": tags}
    about = (labels or {}) | {field: value for field, value in given.items() if value is not None}
    about |= {"project": project, "dir": save_dir, "job_type": "train", "id": run_id}
    about |= {"resume": "allow", "reinit": "create_new"}  # a run of somebody else's in this process stays as it is

    def start(mode: str) -> wandb.Run:
        settings = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        return wandb.init(**about, mode=mode, settings=settings)

    if offline_now:
        run = start("offline")
    else:
        try:
            run = start("online")
        except wandb.errors.CommError as error:
            if offline is False:
                raise ValueError(f"logger.wandb.offline=false, but W&B does not answer: {error}") from error
            rank_zero_info(f"W&B does not answer within {init_timeout:g} s: this run is logged offline")
            run = start("offline")
    started.append(run)
    if run.settings.mode == "offline":
        rank_zero_info(f"W&B runs offline. To send this run: wandb sync {Path(run.dir).parent}")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    identity = {"project": project, "name": about["name"], "run_id": run.id}
    write_atomically(file, (json.dumps(identity) + "\n").encode())
    return WandbLogger(experiment=run)


def reopen_run(run_dir: Path) -> WandbLogger | None:
    """A logger that adds an evaluation to the W&B run of a training's folder, or None if it had none.

    To be finished by `finished_runs`.
    """
    file = run_dir / IDENTITY
    if not file.exists():
        return None
    project = identity_in(file)["project"]
    return wandb_logger(project, None, None, None, str(run_dir), offline=None, init_timeout=20, resumes="auto")


def identity_in(file: Path) -> dict[str, str]:
    """project, name and run_id as `wandb_logger` left them; another program's file, or a stranger's, is refused."""
    identity = json_file(file)
    if not isinstance(identity, dict) or identity.keys() != {"project", "name", "run_id"}:
        raise ValueError(f"{file} must hold project, name and run_id of a W&B run and no more; without it none is used")
    for field, value in identity.items():
        if not isinstance(value, str) or not value:
            check.fail(f"{field} in {file}", value, "a text that is not empty")
    for field in ("project", "run_id"):
        if not re.fullmatch(r"[\w. -]{1,128}", identity[field]):
            check.fail(f"{field} in {file}", identity[field], "letters, digits and . _ - alone")
    return identity
