"""Two tasks of a SLURM job, stood in for by two processes with the environment that srun gives them."""

import os
import signal

import pytest
from processes import checkpoints_of, command, ended, free_port
from small_runs import SMALL, command_environment

from ddpm.checkpoint.folder import list_checkpoints
from ddpm.config import build
from ddpm.runs import cluster

WORDS = (
    *(*SMALL, "trainer=slurm", "trainer.accelerator=cpu", "resume=auto"),
    *("trainer.precision=32-true", "~callbacks.samples", "~callbacks.denoising", "data.num_train=64"),
    *("data.num_val=16", "checkpoint_every_n_steps=1", "optimizer.cosine_decay=false"),
)


def job(restart):
    """What sbatch and srun set in every task of a step of two tasks on one node."""
    return {
        **{"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "interactive", "SLURM_NODELIST": "localhost"},
        **{"MASTER_PORT": free_port()},
        **{"SLURM_NTASKS": "2", "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_STEP_ID": "0"},
        **{"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_STEP_NUM_NODES": "1"},
        **({"SLURM_RESTART_COUNT": str(restart)} if restart else {}),
    }


def started(folder, restart, *words):
    """The tasks in the order of their ranks. An `scontrol` on the path writes down what it is called with."""
    programs = folder / "bin"
    programs.mkdir(exist_ok=True)
    (programs / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder / "scontrol.txt"}\n')
    (programs / "scontrol").chmod(0o755)
    inherited = {key: value for key, value in command_environment().items() if not key.startswith("SLURM")}
    shared = inherited | job(restart) | {"PATH": f"{programs}:{os.environ['PATH']}"}
    numbers = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    return [command(folder, *WORDS, *words, environment=shared | each) for each in numbers]


def both_ended(tasks):
    """Exit codes and outputs, by rank."""
    return zip(*[ended(task) for task in tasks], strict=True)


def runs(folder):
    return [path for path in (folder / "runs").glob("*") if not path.name.startswith(".")]


@pytest.mark.slow
def test_a_job_that_nears_its_end_is_saved_and_requeued_and_goes_on_in_its_folder(tmp_path):
    tasks = started(tmp_path, 0, "trainer.max_steps=100000")
    checkpoints_of(tmp_path, tasks[0], 1)
    for task in tasks:  # as sbatch --signal=USR1@90 has it: all tasks of the step
        task.send_signal(signal.SIGUSR1)
    codes, outputs = both_ended(tasks)
    assert codes == (128 + signal.SIGUSR1,) * 2, outputs
    assert "on 2 x cpu" in outputs[0]
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"
    (run,) = runs(tmp_path)
    step = int(list_checkpoints(run / "checkpoints")[0].stem)
    assert f"SIGUSR1 at step {step}: saved" in outputs[0]

    codes, outputs = both_ended(started(tmp_path, 1, f"trainer.max_steps={step + 2}"))
    assert codes == (0, 0), outputs
    assert f"at step {step:,}" in outputs[0]
    assert runs(tmp_path) == [run]
    assert int(list_checkpoints(run / "checkpoints")[0].stem) == step + 2
    assert (tmp_path / "scontrol.txt").read_text() == "requeue 4711\n"


# What is read from the job


SETTINGS = {"devices": "slurm", "num_nodes": "slurm", "accelerator": "cpu"}


@pytest.fixture
def environment(monkeypatch):
    """`environment(SLURM_JOB_ID=...)`: these variables of SLURM and no others."""

    def only(**variables):
        for name in [*os.environ]:
            if name.startswith(("SLURM", "TORCHELASTIC", "LOCAL_RANK")):
                monkeypatch.delenv(name)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    return only


def test_outside_of_a_job_the_option_is_refused_with_what_to_type(environment):
    environment()
    with pytest.raises(ValueError, match=r"but there is none; .* srun .*trainer=slurm, otherwise use trainer=ddp"):
        cluster.resolve_slurm(SETTINGS)


def test_a_batch_script_that_forgot_srun_is_told(environment):
    """Else each node would wait for tasks that nobody starts."""
    environment(SLURM_JOB_ID="7", SLURM_NTASKS="2", SLURM_PROCID="0")
    with pytest.raises(ValueError, match="of SLURM job 7 was not started by srun; put srun before the command"):
        cluster.resolve_slurm(SETTINGS)


@pytest.mark.parametrize(("told", "nodes", "devices"), [("4(x2)", 2, 4), ("3", 1, 3)])
def test_devices_and_nodes_are_those_of_the_step(environment, told, nodes, devices):
    tasks = str(nodes * devices)
    environment(
        **{"SLURM_JOB_ID": "7", "SLURM_STEP_NUM_TASKS": tasks, "SLURM_STEP_TASKS_PER_NODE": told},
        SLURM_STEP_NUM_NODES=str(nodes),
    )
    assert cluster.resolve_slurm(SETTINGS) == {"devices": devices, "num_nodes": nodes, "accelerator": "cpu"}
    (found,) = cluster.cluster_environment()
    found.validate_settings(num_devices=devices, num_nodes=nodes)
    with pytest.raises(ValueError, match=rf"are 1 processes, but srun started {tasks}; use trainer=slurm"):
        found.validate_settings(num_devices=1, num_nodes=1)


def test_an_uneven_spread_of_tasks_is_refused(environment):
    environment(SLURM_JOB_ID="7", SLURM_STEP_NUM_TASKS="3", SLURM_STEP_TASKS_PER_NODE="2,1", SLURM_STEP_NUM_NODES="2")
    with pytest.raises(ValueError, match="same number of tasks on each node, got 2,1; give --ntasks-per-node"):
        cluster.resolve_slurm(SETTINGS)


def test_a_job_of_one_task_is_a_machine_on_which_lightning_starts_the_processes(environment):
    """Its own finding would be a world of one process, whatever trainer.devices says."""
    environment(SLURM_JOB_ID="7", SLURM_NTASKS="1", SLURM_STEP_NUM_TASKS="1")
    (found,) = cluster.cluster_environment()
    assert not found.creates_processes_externally


def test_a_number_of_tasks_outside_of_a_job_is_not_taken_for_one(config, monkeypatch):
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    monkeypatch.setenv("SLURM_NTASKS", "2")
    assert build.trainer(config("train", "trainer=cpu", "logger=none")).world_size == 1
