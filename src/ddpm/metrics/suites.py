"""What `metric=fid`, `metric=is` and `metric=fid_is` build: Inception, and the scores that one pass of it feeds."""

from pathlib import Path

from ddpm.metrics.evaluator import Evaluator
from ddpm.metrics.features import Inception
from ddpm.metrics.fid import FrechetDistance
from ddpm.metrics.inception_score import InceptionScore
from ddpm.metrics.score import Score


def fid(weights: str | Path | None = None, batch_size: int = 64) -> Evaluator:
    extractor = Inception(weights)
    return Evaluator(extractor, [FrechetDistance(extractor.dims["pooled"])], batch_size)


def inception_score(weights: str | Path | None = None, batch_size: int = 64) -> Evaluator:
    extractor = Inception(weights)
    return Evaluator(extractor, [InceptionScore(extractor.dims["logits"])], batch_size)


def fid_is(weights: str | Path | None = None, batch_size: int = 64) -> Evaluator:
    extractor = Inception(weights)
    scores: list[Score] = [FrechetDistance(extractor.dims["pooled"]), InceptionScore(extractor.dims["logits"])]
    return Evaluator(extractor, scores, batch_size)
