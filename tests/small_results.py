"""A made-up protocol of an evaluation, for results that nobody measured."""

from ddpm.metrics.protocol import EvaluationProtocol

PROTOCOL = EvaluationProtocol(
    num_generated=5000,
    num_real=5000,
    preprocessing="uint8",
    extractor="mnist",
    extractor_hash="ab" * 32,
    scores={"fid": "FrechetDistance(layer=pooled)", "is": "InceptionScore(num_parts=10)"},
    data="mnist",
    split="train",
    data_hash="cd" * 32,
)
