"""Train a diffusion model: python train.py [GROUP=OPTION] [FIELD=VALUE] ...   (--help lists all)"""

from functools import partial
from pathlib import Path

import hydra
from omegaconf import DictConfig

from ddpm.commands import cli
from ddpm.commands.defaults import changes_of_defaults
from ddpm.runs import run_folder

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    cli.run_job(run, config)


def run(config: DictConfig) -> None:
    """Import torch after the configuration is composed, and Lightning after its values are checked."""
    from ddpm.commands.defaults import adapt_defaults
    from ddpm.commands.values import check_values

    adapt_defaults(config)
    check_values(config)
    from ddpm.commands.train import run_train

    run_train(config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "train", prepare=partial(run_folder.add_run_folder, adapt=changes_of_defaults))
