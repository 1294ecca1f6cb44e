"""Builds evaluators from a configuration, for evaluate.py and for `metric=fid` in training."""

import copy
from functools import partial
from typing import Any

from omegaconf import DictConfig

from ddpm.base import check
from ddpm.checkpoint.groups import UNGUIDED
from ddpm.checkpoint.stored_config import Fitted
from ddpm.config.build import build_parts
from ddpm.config.model import with_network_settings
from ddpm.config.wiring import instantiate
from ddpm.evaluation.evaluate_during_training import EvaluateDuringTraining
from ddpm.generation.identity import describe_groups, image_settings
from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.extractors.usual import features_of


def build_evaluator(config: DictConfig, data: str) -> Evaluator:
    """Features and scores. data: name of a data set, which determines the features of features=usual."""
    extractor = features_of(instantiate(config.features, "features"), data)
    return Evaluator(extractor, build_parts(config.metric, "metric"), config.features_batch_size)


def training_evaluations(config: DictConfig) -> list[EvaluateDuringTraining]:
    """Callbacks of `metric=fid` in training. They load the extractor now, so that missing weights fail early."""
    if not (config.get("metric") and "evaluate" in config):
        return []
    for name, leaf in config.metric.items_ex(resolve=False):
        if leaf is not None and str(leaf.get("_target_")).startswith("ddpm.evaluation.model_metrics."):
            raise ValueError(f"metric={name} measures a trained model, not images: use it in evaluate.py")
    settings = {field: config.evaluate[field] for field in ("every_n_steps", "num_samples", "batch_size", "guided")}
    evaluator, described = build_evaluator(config, config.data.name).to("cpu"), copy.deepcopy(config)
    evaluator.refuse_too_few("generated", check.positive_int("evaluate.num_samples", config.evaluate.num_samples))
    if not config.evaluate.guided:
        described.guidance = UNGUIDED
    return [EvaluateDuringTraining(evaluator, **settings, describe=partial(describe, described))]


def describe(config: DictConfig, fitted: Fitted) -> dict[str, Any]:
    """What results say of the model, by group."""
    return describe_groups(image_settings(with_network_settings(config, fitted), fitted))
