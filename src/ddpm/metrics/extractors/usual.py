"""The default features of each data set."""

from functools import partial

from ddpm.metrics.extractors.base import Extractor
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.extractors.mnist import MnistClassifier
from ddpm.metrics.extractors.points import Points
from ddpm.metrics.extractors.stacked_mnist import StackedMnistClassifier


def usual(data: str) -> Extractor:
    """data: the name of a data set. The names of metrics contain that of the chosen features."""
    points = dict.fromkeys(("checkerboard", "gaussian", "grid25", "mixture", "swirl"), Points)
    digits = dict.fromkeys(("mnist", "mnist64", "mnist_captions"), MnistClassifier)
    own = {**digits, "stacked_mnist": StackedMnistClassifier, **points}
    return own.get(data, Inception)()


def features_of(chosen: Extractor | partial[Extractor], data: str) -> Extractor:
    """The chosen features, for which `usual` needs the name of the data set."""
    return chosen(data=data) if isinstance(chosen, partial) else chosen
