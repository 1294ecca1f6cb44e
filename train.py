"""Train a diffusion model: python train.py [GROUP=OPTION] [FIELD=VALUE] ...   (--help lists them)"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ddpm.commands import cli
from ddpm.runs import run_folder

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="train")
def main(config: DictConfig) -> None:
    from ddpm.commands import train  # torch is imported only once the configuration is known to be sound

    cli.run_job(train.run_train, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "train", prepare=run_folder.add_run_folder)
