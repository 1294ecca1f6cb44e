"""Each kind of end has its own exit code, so that a scheduler's rule can rely on them."""

import errno
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch.multiprocessing import ProcessExitedException

from ddpm.base import exit_codes
from ddpm.commands import cli, train

DOCS = Path(__file__).resolve().parents[1] / "docs/reliability.md"


def full():
    raise OSError(errno.ENOSPC, "No space left on device", "runs/one/checkpoints/00000001.ckpt")


def explained():
    try:
        full()
    except OSError as error:
        raise ValueError("out=made has no room left") from error


def not_finite():
    raise FloatingPointError("the loss is not finite")


def memory():
    torch.empty(2**60)


def mistake():
    raise ValueError("seed must be an integer")


class Lost:
    world_size, global_rank = 2, 0


def lost():
    with train.explain_interruptions(OmegaConf.create({"run_dir": "none"}), Lost):
        raise RuntimeError("Connection closed by peer")


def spawned_lost():
    with train.explain_interruptions(OmegaConf.create({"run_dir": "none"}), Lost):
        raise ProcessExitedException("killed", error_index=1, error_pid=1, exit_code=-9, signal_name="SIGKILL")


@pytest.mark.parametrize(
    ("work", "code"),
    [(mistake, 2), (memory, 2), (not_finite, 3), (full, 4), (explained, 4), (lost, 5), (spawned_lost, 5)],
)
def test_each_kind_of_error_ends_a_command_with_its_code(monkeypatch, work, code):
    monkeypatch.setattr(cli, "refuse_what_has_no_effect", lambda *given: None)
    monkeypatch.setattr(
        cli.HydraConfig,
        "get",
        lambda: OmegaConf.create({"job": {"config_name": "evaluate"}, "overrides": {"task": []}}),
    )
    with pytest.raises(SystemExit) as ended:
        cli.run_job(lambda config: work(), OmegaConf.create({}))
    assert ended.value.code == code


def test_the_documents_list_every_code():
    table = DOCS.read_text().partition("## Exit codes")[2].partition("\n## ")[0]
    documented = {
        int(code) for codes in re.findall(r"^\| ([\d, ]+) \|", table, re.MULTILINE) for code in codes.split(", ")
    }
    own = {value for name, value in vars(exit_codes).items() if name.isupper() and isinstance(value, int)}
    assert documented == own | {0, 1, 129, 130, 138, 140, 143}
