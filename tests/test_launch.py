"""How a run's processes find each other: two nodes under torchrun, stood in for by two agents on one machine."""

import sys
from pathlib import Path

import pytest
from processes import command, ended, free_port
from small_runs import SMALL

from ddpm.runs import launch


@pytest.mark.slow
def test_torchrun_on_two_nodes_makes_one_run(tmp_path):
    torchrun = (str(Path(sys.executable).with_name("torchrun")), "--nnodes=2", "--nproc_per_node=1")
    torchrun += ("--master_addr=127.0.0.1", f"--master_port={free_port()}")
    words = (*SMALL, "~callbacks.samples", "data.num_train=64", "trainer.num_nodes=2", "trainer.devices=1")
    nodes = [command(tmp_path, *words, start=(*torchrun, f"--node_rank={rank}")) for rank in range(2)]
    codes, outputs = zip(*[ended(node) for node in nodes], strict=True)
    assert codes == (0, 0), outputs
    (run,) = (tmp_path / "runs").iterdir()
    assert (run / "checkpoints" / "last.ckpt").exists()
    assert "on 2 x cpu" in outputs[0]
    assert "done: 4 steps" in outputs[0]
    assert "done" not in outputs[1]


def test_a_process_that_lightning_starts_within_a_job_is_not_the_first(monkeypatch):
    """It inherits the number of the one task that started it."""
    for name in ("TORCHELASTIC_RUN_ID", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "1",
        "SLURM_PROCID": "0",
        "LOCAL_RANK": "1",
    }.items():
        monkeypatch.setenv(name, value)
    assert not launch.by_slurm()
    assert not launch.is_first_process()


def test_a_sweep_of_jobs_where_none_can_be_submitted_is_refused_with_the_remedy(monkeypatch):
    words = ["-m", "hydra/launcher=submitit_slurm", "seed=1,2"]
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"needs the submitit launcher: pip install '\.\[slurm\]'"):
        launch.refuse_launcher(words)
    monkeypatch.setattr(launch.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(launch.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match=r"finds no srun: .*hydra/launcher=submitit_local starts the jobs on this"):
        launch.refuse_launcher(words)
    launch.refuse_launcher(["-m", "hydra/launcher=submitit_local"])


def test_a_machine_that_the_network_does_not_know_is_named_at_once_and_not_waited_for_without_end(monkeypatch, capsys):
    monkeypatch.setattr(launch, "PATIENCE", 0.1)
    launch.wait_for_address("127.0.0.1")
    with pytest.raises(
        ValueError, match=r"MASTER_ADDR=no\.such\.invalid is unknown to the network after 0.1 s .*: set it"
    ):
        launch.wait_for_address("no.such.invalid")
    assert capsys.readouterr().out.startswith("MASTER_ADDR=no.such.invalid is unknown to the network")
