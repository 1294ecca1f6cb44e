"""Whether a generated image is of the requested class, as a classifier of real images sees it."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.metrics.classes import requested_classes, select_classes
from ddpm.metrics.score import Estimate, FeatureSet, Score


@dataclass(frozen=True)
class ClassAccuracy(Score):
    """`accuracy`: the share of generated images in which the extractor's classifier sees the requested class.

    `accuracy_of_LABEL`: of those of which a class was requested. `accuracy_of_real`: what the same classifier reaches
    on the real images of these classes, the yardstick: far above it guidance makes caricatures. The classifier must
    know the classes of the data by their numbers, as features=mnist does those of MNIST; of the images that trained it
    the yardstick is too good. Error bars are binomial.
    """

    values = ("accuracy", "accuracy_of_real", "accuracy_of_{}")
    layer = "logits"
    min_images = 1
    needs_labels = True

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        """Of a classifier that tells other classes apart, so that its numbers mean something else."""
        requested_classes(real, generated, self.describe())
        known, num = real.rows.shape[1], int(real.labels.max()) + 1
        if known != num:
            raise ValueError(
                f"{self.describe()} needs features whose classes are those of the data: these features tell {known} "
                f"classes apart, and the real images are of {num}; choose metric=cas or metric=fid_per_class"
            )

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        labels = requested_classes(real, generated, self.describe())
        self.refuse(real, generated)
        as_asked = is_recognised(generated)
        values = {
            "accuracy": Estimate.of_mean(as_asked),
            "accuracy_of_real": Estimate.of_mean(is_recognised(select_classes(real, labels))),
        }
        return values | {
            f"accuracy_of_{label}": Estimate.of_mean(as_asked[generated.labels == label]) for label in labels
        }

    def describe(self) -> str:
        return f"ClassAccuracy(layer={self.layer})"


def is_recognised(images: FeatureSet) -> Tensor:
    """bool `[N]`: whether the largest logit is that of the label."""
    return images.rows.argmax(1) == images.labels
