"""A Weights & Biases run that never stops a training: offline where there is no key or no network."""

import json
import netrc
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlparse

import wandb
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from ddpm import check
from ddpm.atomic import write_whole
from ddpm.untrusted import json_file

IDENTITY = "wandb_run.json"


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
    name: str,
    group: str | None,
    tags: Sequence[str],
    save_dir: str,
    offline: bool | None,
    init_timeout: float,
    job_type: str = "train",
    run_id: str | None = None,
    resumes: str | None = None,
) -> WandbLogger:
    """offline: True, False, or None for offline if there is no key or the network does not answer in time.

    init_timeout: seconds. run_id: go on in the run of this id. resumes: what the training goes on from, if anything;
    its numbers then go on in the run that save_dir names. Only the first process makes a run; it leaves its identity
    in save_dir/wandb_run.json.
    """
    if rank_zero_only.rank != 0:
        return WandbLogger(project=project, save_dir=save_dir, offline=True)
    file = Path(save_dir) / IDENTITY
    if resumes is not None and file.exists():
        run_id = identity_in(file)["run_id"]
    offline_now = not has_key() if offline is None else offline
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        offline_now = True
    about = {"project": project, "name": name, "group": group, "tags": list(tags), "dir": save_dir}
    about |= {"job_type": job_type, "id": run_id, "resume": "allow"}

    def start(mode: str) -> wandb.Run:
        return wandb.init(**about, mode=mode, settings=wandb.Settings(init_timeout=init_timeout, silent=True))

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
    if run.settings.mode == "offline":
        rank_zero_info(f"W&B runs offline. To send this run: wandb sync {Path(run.dir).parent}")
    run.define_metric("trainer/global_step")
    run.define_metric("*", step_metric="trainer/global_step", step_sync=True)
    identity = {"project": project, "name": name, "run_id": run.id}
    write_whole(file, (json.dumps(identity) + "\n").encode())
    return WandbLogger(experiment=run)


def reopened(run_dir: Path) -> WandbLogger | None:
    """A logger that adds an evaluation to the W&B run of a training's folder, or None if it had none."""
    file = run_dir / IDENTITY
    if not file.exists():
        return None
    identity = identity_in(file)
    return wandb_logger(
        **identity, group=None, tags=[], save_dir=str(run_dir), offline=None, init_timeout=20, job_type="eval"
    )


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
