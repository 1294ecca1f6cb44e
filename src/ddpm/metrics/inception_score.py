"""Inception score: how sure a classifier is of each image, and of how many different things.

Salimans et al. 2016, section 4: exp E KL(p(y|x) || p(y)), mean and standard deviation over ten parts.
"""

import torch
from torch import Tensor
from torch_fidelity.metric_isc import KEY_METRIC_ISC_MEAN, KEY_METRIC_ISC_STD, isc_features_to_metric
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from ddpm import check

NUM_PARTS = 10
SHUFFLE_SEED = 2020  # torch-fidelity's default


class InceptionScore(Metric):
    """Keeps the logits with their images' numbers, and puts them in order before torch-fidelity shuffles and scores.

    So neither batches nor ranks change the value. torchmetrics syncs, but its InceptionScore does not score: it
    shuffles by the global generator, cuts 33 images into 9 parts, and divides the variance by n - 1 (published: by n).
    """

    layer = "logits"
    needs_real = False
    min_images = NUM_PARTS
    full_state_update = False
    logits: list[Tensor]
    ids: list[Tensor]

    def __init__(self, num_logits: int) -> None:
        super().__init__()
        self.num_logits = check.positive_int("num_logits", num_logits)
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("ids", [], dist_reduce_fx="cat")
        self.reset_fake()

    def update(self, features: Tensor, ids: Tensor, real: bool) -> None:
        if not real:
            self.logits.append(features)
            self.ids.append(ids)

    def compute(self) -> dict[str, float]:
        order = dim_zero_cat(self.ids).argsort()
        score = isc_features_to_metric(dim_zero_cat(self.logits)[order].cpu(), NUM_PARTS, True, SHUFFLE_SEED)
        return {"is": score[KEY_METRIC_ISC_MEAN], "is_std": score[KEY_METRIC_ISC_STD]}

    def reset_fake(self) -> None:
        self.reset()
        # No rows: a rank without images still has the shape that the others gather
        nothing = torch.zeros(0, device=self.device)
        self.update(nothing.reshape(0, self.num_logits), nothing.long(), real=False)

    def caveat(self, num_real: int, num_generated: int) -> str | None:
        if num_generated < 10_000:
            return (
                f"IS of {num_generated} generated images: under 10,000 its ten parts are small and it is biased "
                "downwards. Compare it with figures of the same n only"
            )
        return None
