"""Weights & Biases runs that never stop a training: they are offline without a key or a network."""

import json
import netrc
import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import wandb
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only, rank_zero_warn
from wandb.sdk.mailbox import MailboxClosedError

from ddpm.base import check
from ddpm.base.atomic import write_atomically
from ddpm.base.program import shell_command
from ddpm.base.untrusted import json_file

IDENTITY = "wandb_run.json"
FIELDS = {"project", "name", "run_id", "entity", "group", "tags", "notes"}
"""The file of a run and what it may hold."""

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


PROJECT = re.compile(r"[^/\\#?%:\x00-\x1f]{1,128}")
TAG = 64
"""The limits of the client: project names, and characters of a tag."""


def check_fields(about: Mapping[str, Any], where: str) -> None:
    """Raise ValueError for what the client would refuse when a run starts. where: prefix of the fields' names."""
    rules = {
        "project": (PROJECT.fullmatch, "a text of 1 to 128 characters without / \\ # ? % :"),
        "entity": (re.compile(r"[\w.-]{1,128}").fullmatch, "the name of a user or a team: letters, digits and . _ -"),
        "name": (bool, "a text that is not empty"),
        "run_id": (re.compile(r"[\w. -]{1,128}").fullmatch, "letters, digits and . _ - alone"),
        "notes": (lambda text: True, "a text"),
        "group": (bool, "a text that is not empty"),
    }
    for field, value in about.items():
        if field == "tags":
            are_texts = isinstance(value, Sequence) and all(isinstance(each, str) and each for each in value)
            if not are_texts or isinstance(value, str):
                check.fail(f"{where}tags", value, f"a list of texts of 1 to {TAG} characters")
        elif not isinstance(value, str) or not rules[field][0](value):
            check.fail(f"{where}{field}", value, rules[field][1])


def shortened(tags: Sequence[str]) -> list[str]:
    for tag in tags:
        if len(tag) > TAG:
            rank_zero_info(f"W&B allows {TAG} characters in a tag: {tag!r} is shortened")
    return list(dict.fromkeys(tag[:TAG] for tag in tags))


def sync_command(run: wandb.Run) -> str:
    """The command that sends an offline run. `wandb sync` joins the parts of a resumed run if one command names all
    of them; their names begin with the time of their start, and a shell sorts what a pattern matches."""
    folder = Path(run.dir).parent.parent
    return f"{shell_command('wandb')} sync {shlex.quote(str(folder))}/offline-run-*-{run.id}"


class RunLogger(WandbLogger):
    """Uploads checkpoints as artifacts: the last one (uploads=True), each ("all") or none (False). If the client loses
    its service process, nothing more is logged here, and the training continues."""

    def __init__(self, run: wandb.Run, uploads: bool | str = False) -> None:
        super().__init__(experiment=run)
        self.uploads = uploads
        self.newest: Path | None = None  # not uploaded yet
        self.is_lost = False

    @contextmanager
    def tolerated(self) -> Iterator[None]:
        try:
            yield
        except (OSError, wandb.errors.Error, MailboxClosedError) as error:
            self.is_lost = True
            rank_zero_warn(f"W&B fails: {error}; nothing more is logged there, and the training continues")

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_lost:
            with self.tolerated():
                super().log_metrics(*args, **kwargs)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_lost:
            with self.tolerated():
                super().log_hyperparams(*args, **kwargs)

    def log_image(self, *args: Any, **kwargs: Any) -> None:
        if not self.is_lost:
            with self.tolerated():
                super().log_image(*args, **kwargs)

    def after_save_checkpoint(self, checkpoint_callback: Checkpoint) -> None:
        self.newest = checkpoint_callback.newest
        if self.uploads == "all":
            self.upload()

    def finalize(self, status: str) -> None:
        if self.uploads:
            self.upload()

    @rank_zero_only
    def upload(self) -> None:
        path, self.newest = self.newest, None
        if path is not None:
            run = self.experiment
            try:
                run.log_artifact(path, name=f"model-{run.id}", type="model", aliases=["latest", path.stem])
            except (OSError, ValueError) as error:
                rank_zero_warn(f"{path} was not handed to W&B: {error}; the run continues")


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
    entity: str | None = None,
    notes: str | None = None,
    mode: str | None = None,
    log_model: bool | str = False,
) -> WandbLogger:
    """offline: True, False, or None for offline if there is no key or the network does not answer in time.

    mode: online or offline instead of `offline`, or disabled for no run. init_timeout: seconds. resumes: the checkpoint
    from which training resumes, or None; if set, the run of save_dir is continued. labels: defaults of name, group and
    tags. log_model: upload the last checkpoint (True) or each ("all") as an artifact. Only the first process creates a
    run, which `finished_runs` finishes, and writes its identity to save_dir/wandb_run.json.
    """
    given = {"project": project, "name": name, "group": group, "tags": tags, "entity": entity, "notes": notes}
    given = {field: value for field, value in given.items() if value is not None}
    check_fields({"project": project} | given, "logger.wandb.")
    check.one_of("logger.wandb.log_model", log_model, (False, True, "all"))
    if check.one_of("logger.wandb.mode", mode, (None, "online", "offline", "disabled")) is not None:
        if offline is not None:
            raise ValueError(f"logger.wandb.mode={mode} has no effect beside logger.wandb.offline; leave one out")
        offline = {"online": False, "offline": True}.get(mode)
    check.number("logger.wandb.init_timeout", init_timeout, low=0)
    if rank_zero_only.rank != 0:
        return WandbLogger(project=project, save_dir=save_dir, offline=True)
    file, run_id = Path(save_dir) / IDENTITY, None
    if resumes is not None and file.exists():
        earlier = identity_in(file)
        run_id, name = earlier["run_id"], name or earlier["name"]
        given["name"] = name
    about = {field: value for field, value in (labels or {}).items() if value is not None} | given
    about["tags"] = shortened(about.get("tags", ()))
    about |= {"job_type": "train", "dir": save_dir, "id": run_id, "resume": "allow"}
    about |= {"reinit": "create_new"}  # other runs in this process stay unchanged

    if mode == "disabled":
        return RunLogger(start_run(about, "disabled", init_timeout))
    run = start_run_or_offline(about, offline, init_timeout)
    started.append(run)
    if run.settings.mode == "offline":
        rank_zero_info(f"W&B runs offline. To send this run: {sync_command(run)}")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    identity = {field: value for field, value in about.items() if field in FIELDS} | {"run_id": run.id}
    write_atomically(file, (json.dumps(identity) + "\n").encode())
    return RunLogger(run, log_model)


def start_run(about: Mapping[str, Any], mode: str, init_timeout: float) -> wandb.Run:
    try:
        settings = wandb.Settings(init_timeout=init_timeout, silent=True, console="off")
        return wandb.init(**about, mode=mode, settings=settings)
    except (wandb.errors.UsageError, ValueError) as error:  # the latter of pydantic, with a list of errors
        found = error.errors()[0] if hasattr(error, "errors") else {"loc": (), "msg": error}
        why = " ".join([*map(str, found["loc"]), str(found["msg"])])
        raise ValueError(f"W&B refuses a setting of logger.wandb or of a variable WANDB_...: {why}") from error


def start_run_or_offline(about: Mapping[str, Any], offline: bool | None, init_timeout: float) -> wandb.Run:
    """Start a run as `offline` of `wandb_logger` says, offline in any case if the environment does."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled") or (not has_key() if offline is None else offline):
        return start_run(about, "offline", init_timeout)
    try:
        return start_run(about, "online", init_timeout)
    except wandb.errors.CommError as error:
        if offline is False:
            raise ValueError(f"logger.wandb is online, but W&B does not answer: {error}") from error
        rank_zero_info(f"W&B does not answer within {init_timeout:g} s: this run is logged offline")
        return start_run(about, "offline", init_timeout)


def reopen_run(run_dir: Path) -> WandbLogger | None:
    """A logger that adds an evaluation to the W&B run of a training's folder, or None if there is none.

    The run keeps its name, group, tags and notes. `finished_runs` finishes the run.
    """
    file = run_dir / IDENTITY
    if not file.exists():
        return None
    about = {"name": None, "group": None, "tags": None} | identity_in(file)
    del about["run_id"]
    return wandb_logger(**about, save_dir=str(run_dir), offline=None, init_timeout=20, resumes="auto")


def identity_in(file: Path) -> dict[str, Any]:
    """What `wandb_logger` wrote; earlier versions wrote only project, name and run_id. ValueError for other content."""
    identity = json_file(file)
    if not isinstance(identity, dict) or not {"project", "name", "run_id"} <= identity.keys() <= FIELDS:
        raise ValueError(f"{file} must have project, name and run_id of a W&B run; delete it to start a new run")
    check_fields(identity, f"{file}: ")
    return identity
