"""Generate images with a trained model: python sample.py ckpt=... [FIELD=VALUE] ...   (--help lists all)"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ddpm.commands import cli

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(config: DictConfig) -> None:
    from ddpm.commands import sample  # torch is imported only after the configuration is composed

    cli.run_job(sample.run_sample, config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "sample")
