"""A U-Net with cross-attention to a text, and the text encoder that is trained with it."""

from collections.abc import Sequence
from typing import Any, final

from torch import Tensor

from ddpm.base import check
from ddpm.networks.unet import AroundUNet, UNet


@final
class TextUNet(AroundUNet):
    """`network(x, time, caption) -> [B, out_channels, H, W]`; caption: token numbers int64 `[B, N]` of `text.tokenize`.

    Rombach et al. 2022, section 3.3. Without captions, the text is empty. A U-Net for a frozen text encoder is a plain
    `UNet` with token_channels. text: the text encoder, for example `Words`. vocabulary: its words, if it has its own.
    settings: arguments of `UNet`.
    """

    def __init__(
        self,
        in_channels: int,
        text: Any,
        *,
        vocabulary: Sequence[str] | None = None,
        out_channels: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        if not text or not text.trained:
            check.fail("text", text, "an encoder that is trained, as text=words; with a frozen one, use a UNet")
        if vocabulary is not None:
            text = text.with_vocabulary(vocabulary)
        self.encoder = text.encoder()
        self.unet = UNet(in_channels, out_channels=out_channels, token_channels=text.token_channels, **settings)
        self.register_buffer("empty", text.tokenize([""]), persistent=False)

    def forward(self, x: Tensor, time: Tensor, caption: Tensor | None = None, **conditions: Tensor) -> Tensor:
        if caption is None:
            caption = self.empty.expand(len(x), -1)
        if caption.shape != (len(x), self.empty.shape[1]) or caption.is_floating_point():
            check.fail("caption", f"{caption.dtype} {[*caption.shape]}", f"integers {[len(x), self.empty.shape[1]]}")
        return self.unet(x, time, tokens=self.encoder(caption), **conditions)
