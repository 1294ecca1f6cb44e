"""The W&B run of a training that is resumed. Everything else about it is shown by whole commands."""

import pytest
import wandb

from ddpm.training.wandb_run import wandb_logger


@pytest.fixture
def run_id(tmp_path):
    """`run_id(resumes)`: the id of the run that a training of this folder logs to."""

    def opened(resumes):
        logger = wandb_logger("p", "n", None, [], str(tmp_path), offline=True, init_timeout=5, resumes=resumes)
        found = logger.experiment.id
        wandb.finish()
        return found

    return opened


def test_a_resumed_training_goes_on_in_the_same_run_and_a_new_one_in_another(run_id):
    first = run_id(None)
    assert run_id("auto") == first
    assert run_id(None) != first
