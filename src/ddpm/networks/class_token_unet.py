"""A U-Net with cross-attention to an embedding of the class (Rombach et al. 2022, appendix E.2)."""

from typing import Any, final

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.embeddings import rows_of
from ddpm.networks.settings import check_label
from ddpm.networks.unet import AroundUNet, UNet


@final
class ClassTokenUNet(AroundUNet):
    """`network(x, time, label) -> [B, out_channels, H, W]`; label: int64 `[B]` in 0..num_classes-1, -1 for none.

    The embedding of the class is one token `[B, 1, token_channels]` of a `UNet`, instead of being added to its time
    embedding. Attention to a single token has the weight 1, so each cross-attention adds a linear function of the
    embedding. Its queries and keys have no effect and get gradients of 0.

    Without a class, the token is 0, which adds nothing. null_embedding: it is a learned last row of the table instead,
    as published for ImageNet with guidance. (Both can represent the same functions, because the biases and the other
    rows can absorb this row.)
    num_classes: None: there is neither a table nor cross-attention. settings: arguments of `UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        token_channels: int,
        *,
        num_classes: int | None = None,
        null_embedding: bool = False,
        out_channels: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        check.positive_int_or_none("num_classes", num_classes)
        check.positive_int("token_channels", token_channels)
        check.boolean("null_embedding", null_embedding)
        self.num_classes, self.null_embedding = num_classes, null_embedding
        attended = token_channels if num_classes else None
        self.unet = UNet(in_channels, out_channels=out_channels, token_channels=attended, **settings)
        self.classes = nn.Embedding(num_classes + null_embedding, token_channels) if num_classes else None

    def forward(self, x: Tensor, time: Tensor, label: Tensor | None = None, **conditions: Tensor) -> Tensor:
        check_label(label, len(x), self.num_classes)
        if self.classes is None:
            return self.unet(x, time, **conditions)
        label = torch.full((len(x),), -1, device=x.device) if label is None else label
        if self.null_embedding:
            label = torch.where(label < 0, self.num_classes, label)
        return self.unet(x, time, tokens=rows_of(self.classes, label)[:, None], **conditions)
