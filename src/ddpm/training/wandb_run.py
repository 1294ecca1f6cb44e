"""Weights & Biases runs that never stop a training: they are offline without a key or a network."""

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
    """Finish the runs that are started within this context, as failed after an exception. They get the log files of
    their folder instead of the console output, which contains all updates of progress bars."""
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
            except Exception as error:  # the training itself is complete
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

    init_timeout: seconds. resumes: the checkpoint from which training resumes, or None; if set, the run of save_dir is
    continued. labels: defaults of name, group and tags. Only the first process creates a run, which `finished_runs`
    finishes, and writes its identity to save_dir/wandb_run.json.
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
    about |= {"resume": "allow", "reinit": "create_new"}  # other runs in this process stay unchanged

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
    """A logger that adds an evaluation to the W&B run of a training's folder, or None if there is none.

    `finished_runs` finishes the run.
    """
    file = run_dir / IDENTITY
    if not file.exists():
        return None
    project = identity_in(file)["project"]
    return wandb_logger(project, None, None, None, str(run_dir), offline=None, init_timeout=20, resumes="auto")


def identity_in(file: Path) -> dict[str, str]:
    """project, name and run_id as `wandb_logger` wrote them; ValueError for any other content."""
    identity = json_file(file)
    if not isinstance(identity, dict) or identity.keys() != {"project", "name", "run_id"}:
        raise ValueError(f"{file} must have only project, name and run_id of a W&B run; delete it to start a new run")
    for field, value in identity.items():
        if not isinstance(value, str) or not value:
            check.fail(f"{field} in {file}", value, "a text that is not empty")
    for field in ("project", "run_id"):
        if not re.fullmatch(r"[\w. -]{1,128}", identity[field]):
            check.fail(f"{field} in {file}", identity[field], "letters, digits and . _ - alone")
    return identity
