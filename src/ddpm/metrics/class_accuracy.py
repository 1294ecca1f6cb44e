"""Class accuracy: whether a classifier of real images assigns generated images to the requested class."""

from dataclasses import dataclass

from torch import Tensor

from ddpm.metrics.classes import requested_classes, select_classes
from ddpm.metrics.score import Estimate, FeatureSet, Score


@dataclass(frozen=True)
class ClassAccuracy(Score):
    """`accuracy`: the share of generated images that the extractor's classifier assigns to the requested class.

    `accuracy_of_LABEL`: the same for one requested class. `accuracy_of_real`: accuracy of the classifier on the real
    images of these classes, for comparison; a far higher `accuracy` means that guidance exaggerates the classes. The
    classifier must number the classes as the data do, like features=mnist for MNIST. `accuracy_of_real` is too high on
    images that trained the classifier. Errors are binomial.
    """

    values = ("accuracy", "accuracy_of_real", "accuracy_of_{}")
    layer = "logits"
    min_images = 1
    needs_labels = True

    def refuse(self, real: FeatureSet, generated: FeatureSet) -> None:
        """ValueError also if the classifier has another number of classes than the data."""
        requested_classes(real, generated, self.describe())
        known, num = real.rows.shape[1], int(real.labels.max()) + 1
        if known != num:
            raise ValueError(
                f"{self.describe()} needs features whose classes are those of the data: these features have {known} "
                f"classes, and the real images have {num}; choose metric=cas or metric=fid_per_class"
            )

    def __call__(self, real: FeatureSet, generated: FeatureSet) -> dict[str, Estimate]:
        labels = requested_classes(real, generated, self.describe())
        self.refuse(real, generated)
        as_asked = is_recognised(generated)
        values = {
            "accuracy": Estimate.of_mean(as_asked),
            "accuracy_of_real": Estimate.of_mean(is_recognised(select_classes(real, labels))),
        }
        return values | {f"accuracy_of_{k}": Estimate.of_mean(as_asked[generated.labels == k]) for k in labels}

    def describe(self) -> str:
        return f"ClassAccuracy(layer={self.layer})"


def is_recognised(images: FeatureSet) -> Tensor:
    """bool `[N]`: whether the largest logit is that of the label."""
    return images.rows.argmax(1) == images.labels
