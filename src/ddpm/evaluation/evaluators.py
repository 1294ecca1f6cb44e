"""Features and scores of a configuration, for evaluate.py and for `metric=fid` in training."""

from functools import partial

from omegaconf import DictConfig

from ddpm.checkpoint.stored_config import Fitted
from ddpm.config.build import made
from ddpm.config.model import with_network_settings
from ddpm.config.wiring import instantiate
from ddpm.evaluation.scores import Scores
from ddpm.generation.identity import decisive, for_result
from ddpm.metrics.evaluator import Evaluator


def evaluator(config: DictConfig, data: str) -> Evaluator:
    """Features and the scores of them. data: name of a data set, in case it has features of its own."""
    extractor = instantiate(config.features, "features")
    if isinstance(extractor, partial):
        extractor = extractor(data=data)
    return Evaluator(extractor, made(config.metric, "metric"), config.features_batch_size)


def scores_of_training(config: DictConfig, fitted: Fitted) -> list[Scores]:
    """`metric=fid` in training. The extractor is loaded now, so that missing weights show before any work."""
    if not (config.get("metric") and "evaluate" in config):
        return []
    for name, leaf in config.metric.items_ex(resolve=False):
        if leaf is not None and str(leaf.get("_target_")).startswith("ddpm.evaluation.measures."):
            raise ValueError(f"metric={name} measures a trained model, not images: choose it in evaluate.py")
    settings = {field: config.evaluate[field] for field in ("every_n_steps", "num_samples", "batch_size")}
    model = for_result(decisive(with_network_settings(config, fitted), fitted))
    return [Scores(evaluator(config, config.data.name).to("cpu"), **settings, of=model)]
