"""The features that are meant where nobody chooses."""

from ddpm.metrics.extractors.base import Extractor
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.extractors.mnist import MnistClassifier


def usual(data: str) -> Extractor:
    """data: the name of a data set. Its metrics' names tell which it was."""
    return MnistClassifier() if data == "mnist" else Inception()
