"""What a job knows of the SLURM scheduler that runs it. https://slurm.schedmd.com/sbatch.html"""

import os
import subprocess

from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn


def job_id() -> str | None:
    """As `scontrol` takes it; None outside of a job. Tasks of an array have numbers of their own."""
    if "SLURM_ARRAY_JOB_ID" in os.environ:
        return f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}"
    return os.environ.get("SLURM_JOB_ID")


def requeue() -> None:
    """Puts this job back into the queue, where the same command starts again."""
    job = job_id()
    if job is None:
        return
    try:
        subprocess.run(["scontrol", "requeue", job], check=True, capture_output=True, text=True, timeout=60)
        rank_zero_info(f"SLURM job {job} was put back into the queue")
    except (OSError, subprocess.SubprocessError) as error:
        rank_zero_warn(f"SLURM job {job} could not be put back into the queue: {error}; submit it again by hand")
