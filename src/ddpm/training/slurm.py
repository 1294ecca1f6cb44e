"""The SLURM job of this process. https://slurm.schedmd.com/sbatch.html"""

import os
import subprocess

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn


def job_id() -> str | None:
    """The job id for `scontrol`, with the task id for arrays; None outside of a job."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue() -> None:
    """Put this job back into the queue, which will run the same command again."""
    job = job_id()
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
        rank_zero_info(f"SLURM job {job} was put back into the queue")
    except (OSError, subprocess.SubprocessError) as error:
        rank_zero_warn(f"SLURM job {job} could not be put back into the queue: {error}; submit it again by hand")
