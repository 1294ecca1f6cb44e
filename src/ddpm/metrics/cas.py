"""Classification accuracy score: accuracy of a classifier trained on generated images (Ravuri and Vinyals 2019).

The classifier is trained on generated images, with the requested classes as labels, and tested on real ones. So the
score falls if images are of the wrong class, or if a class is less diverse than the real one.
"""

from dataclasses import dataclass
from typing import Annotated

import torch
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from ddpm.base import check
from ddpm.metrics.classes import requested_classes, select_classes
from ddpm.metrics.score import Estimate, FeatureSet, Score

SEED = 2020


@dataclass(frozen=True)
class ClassificationAccuracyScore(Score):
    """`cas`, `cas_of_LABEL`, and `cas_of_real`, the score of a classifier that is trained on real images.

    The paper trains a ResNet-50 on pixels. This score uses multinomial logistic regression on features of the layer
    "pooled", standardized to mean 0 and deviation 1, with the penalty l2 / 2 |weights|^2 added to the sum of losses. It
    takes minutes instead of days, but its values cannot be compared with the paper's. `cas_of_real` uses
    cross-validation: each of num_folds parts is tested by a classifier of the others, with at most as many images as
    there are generated ones. Only requested classes are tested. Errors are binomial, over the real images.
    """

    l2: Annotated[float, check.numbers(low=1e-9)] = 1.0
    num_folds: Annotated[int, check.integers(2)] = 5
    layer: str = "pooled"
    values = ("cas", "cas_of_real", "cas_of_{}")
    needs_labels = True

    @property
    def min_images(self) -> int:
        return self.num_folds

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        labels = requested_classes(real, generated, self.describe())
        if len(labels) < 2:
            raise ValueError(f"{self.describe()} needs samples of at least two classes, got class {labels[0]} alone")

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        self.refuse(real, generated)
        labels = requested_classes(real, generated, self.describe())
        real = select_classes(real, labels)
        right = self.fitted(generated.rows, generated.labels).right(real.rows, real.labels)
        values = {
            "cas": Estimate.of_mean(right),
            "cas_of_real": Estimate.of_mean(self.cross_fitted(real, generated.num_images)),
        }
        return values | {f"cas_of_{label}": Estimate.of_mean(right[real.labels.cpu() == label]) for label in labels}

    def fitted(self, rows: Tensor, labels: Tensor) -> "LinearClassifier":
        regression = LogisticRegression(C=1 / self.l2, tol=1e-6, max_iter=5000)
        return LinearClassifier(make_pipeline(StandardScaler(), regression).fit(*training_arrays(rows, labels)))

    def cross_fitted(self, real: FeatureSet, most: int) -> Tensor:
        """Whether each real image is classified correctly by the classifier of the other folds, bool `[N]`."""
        order = torch.randperm(real.num_images, generator=torch.Generator().manual_seed(SEED))
        right = torch.zeros(real.num_images, dtype=torch.bool)
        for fold in range(self.num_folds):
            tested = order[fold :: self.num_folds]
            others = order[torch.arange(len(order)) % self.num_folds != fold][:most]
            classifier = self.fitted(real.rows.cpu()[others], real.labels.cpu()[others])
            right[tested] = classifier.right(real.rows.cpu()[tested], real.labels.cpu()[tested])
        return right

    def describe(self) -> str:
        return f"ClassificationAccuracyScore(l2={self.l2:g}, num_folds={self.num_folds}, layer={self.layer})"


@dataclass(frozen=True)
class LinearClassifier:
    pipeline: Pipeline

    def right(self, rows: Tensor, labels: Tensor) -> Tensor:
        """Whether each label is predicted, bool `[N]` on the CPU."""
        features, classes = training_arrays(rows, labels)
        return torch.from_numpy(self.pipeline.predict(features) == classes)


def training_arrays(rows: Tensor, labels: Tensor) -> tuple:
    return rows.detach().cpu().double().numpy(), labels.cpu().numpy()
