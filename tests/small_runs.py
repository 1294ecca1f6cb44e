"""Settings with which any run is a matter of seconds, and the environment of a command that a test starts."""

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
THREADS = int(os.environ.get("DDPM_TEST_THREADS", "1"))

SMALL = (
    *("model.base_channels=8", "model.num_groups=4", "data=digits", "data.batch_size=16", "logger=none"),
    *("model.patch_size=1", "sampler.steps=3", "trainer.max_steps=4", "trainer.log_every_n_steps=2", "trainer=cpu"),
    *("callbacks.samples.num_samples=4", "callbacks.denoising.num_samples=2", "optimizer.warmup_steps=2"),
)
"""Overrides that make any run of train.py a matter of seconds."""


def command_environment():
    return {**os.environ, "OMP_NUM_THREADS": str(THREADS), "WANDB_MODE": "offline"}
