"""SLURM: the tasks that srun started are the ranks of a run. https://slurm.schedmd.com/srun.html"""

import os
import re
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment, LightningEnvironment, SLURMEnvironment

from ddpm.runs import launch

WORD = "slurm"


def resolve_slurm(settings: dict[str, Any]) -> dict[str, Any]:
    """The trainer settings, with the job's devices and num_nodes for trainer=slurm; ValueError outside of a job."""
    requested = [name for name in ("devices", "num_nodes") if settings[name] == WORD]
    if not requested:
        return settings
    if "SLURM_JOB_ID" not in os.environ:
        raise ValueError(
            f"trainer.{requested[0]}={WORD} needs a SLURM job, but there is none; in a job, run "
            "srun --nodes=2 --ntasks-per-node=8 python train.py trainer=slurm, otherwise use trainer=ddp or trainer=cpu"
        )
    if not launch.by_srun():
        raise ValueError(
            f"trainer.{requested[0]}={WORD}, but this process of SLURM job {os.environ['SLURM_JOB_ID']} was not "
            "started by srun; put srun before the command: srun --ntasks-per-node=8 python train.py trainer=slurm"
        )
    step = {"devices": tasks_per_node(), "num_nodes": int(os.environ["SLURM_STEP_NUM_NODES"])}
    gpus = torch.cuda.device_count()
    if settings["accelerator"] != "cpu" and 0 < gpus < step["devices"]:
        raise ValueError(
            f"srun started {step['devices']} tasks on a node, but this one sees {gpus} GPU{'s' * (gpus != 1)}; "
            f"each task must see all: use --gpus-per-node={step['devices']} instead of --gpus-per-task"
        )
    return settings | {name: step[name] for name in requested}


def tasks_per_node() -> int:
    """Tasks per node, from a SLURM variable such as `4(x2)` for two nodes. Raises ValueError for `4,3`."""
    tasks = os.environ["SLURM_STEP_TASKS_PER_NODE"]
    even = re.fullmatch(r"(\d+)(\(x\d+\))?", tasks)
    if not even:
        raise ValueError(f"srun must start the same number of tasks on each node, got {tasks}; give --ntasks-per-node")
    return int(even.group(1))


class SrunTasks(SLURMEnvironment):
    """Lightning's SLURM environment, without two restrictions: Lightning ignores jobs named `interactive`, and requires
    SLURM_NTASKS_PER_NODE, which is not always set."""

    @staticmethod
    def _validate_srun_variables() -> None: ...

    def world_size(self) -> int:
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        requested, tasks = num_nodes * num_devices, self.world_size()
        if requested != tasks:
            raise ValueError(
                f"trainer.num_nodes={num_nodes} x trainer.devices={num_devices} are {requested} processes, but srun "
                f"started {tasks}; use trainer=slurm, which takes both from the job"
            )


def cluster_environment() -> list[ClusterEnvironment]:
    """The environment from which Lightning takes ranks; empty if Lightning finds it by itself.

    Our callbacks save and requeue. In a job with one task, Lightning starts the other processes.
    """
    if launch.by_slurm():
        return [SrunTasks(auto_requeue=False)]
    if {"SLURM_JOB_ID", "SLURM_NTASKS"} & os.environ.keys() and not launch.by_torchrun():
        return [LightningEnvironment()]
    return []
