"""Generate images with a trained model: python sample.py ckpt=... [FIELD=VALUE] ...   (--help lists all)"""

from pathlib import Path

import hydra
from omegaconf import DictConfig

from ddpm.commands import cli

CONF = Path(__file__).parent / "conf"


@hydra.main(version_base="1.3", config_path="conf", config_name="sample")
def main(config: DictConfig) -> None:
    cli.run_job(run, config)


def run(config: DictConfig) -> None:
    """Import torch after the configuration is composed and the first line is printed."""
    from ddpm.commands.sample import run_sample

    run_sample(config)


if __name__ == "__main__":
    cli.run_command(main, CONF, "sample")
