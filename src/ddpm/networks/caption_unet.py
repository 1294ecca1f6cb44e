"""A U-Net with cross-attention to the words of a caption (Rombach et al. 2022, section 3.3)."""

from typing import Any, final

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.networks.settings import check_numbers
from ddpm.networks.unet import AroundUNet, UNet


@final
class CaptionUNet(AroundUNet):
    """`network(x, time, words) -> [B, out_channels, H, W]`; words: int64 `[B, num_tokens]` in 0..num_words, 0 for none.

    A token is the sum of a word embedding and a position embedding; number 0 gives a token of zeros. There is no text
    encoder, which longer texts would need. token_channels: size of a token. settings: arguments of `UNet`, which can
    also receive other conditions.
    """

    def __init__(
        self,
        in_channels: int,
        num_words: int,
        num_tokens: int,
        token_channels: int,
        *,
        out_channels: int | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        for name, value in (("num_words", num_words), ("num_tokens", num_tokens)):
            if value is None:
                check.fail(name, value, "an integer; cond=attributes sets it")
            check.positive_int(name, value)
        check.positive_int("token_channels", token_channels)
        num_vectors = num_words + num_tokens
        require_memory(4 * num_vectors * token_channels, f"num_words + num_tokens = {num_vectors} vectors")
        self.unet = UNet(in_channels, out_channels=out_channels, token_channels=token_channels, **settings)
        self.words = nn.Embedding(num_words, token_channels)
        self.places = nn.Embedding(num_tokens, token_channels)

    def forward(self, x: Tensor, time: Tensor, words: Tensor | None = None, **conditions: Tensor) -> Tensor:
        if words is None:
            words = torch.zeros(len(x), self.places.num_embeddings, dtype=torch.int64, device=x.device)
        else:
            self._check(words)
        return self.unet(x, time, tokens=self.tokens(words), **conditions)

    def tokens(self, words: Tensor) -> Tensor:
        """int64 `[B, num_tokens]` to `[B, num_tokens, token_channels]`.

        Tokens of number 0 are multiplied by 0, because DDP expects a gradient of the embeddings in each step.
        """
        return (self.words((words - 1).clamp(min=0)) + self.places.weight) * (words > 0)[:, :, None]

    def _check(self, words: Tensor) -> None:
        num_words, num_tokens = self.words.num_embeddings, self.places.num_embeddings
        if words.ndim != 2 or words.shape[1] != num_tokens or words.is_floating_point():
            check.fail("words", f"{words.dtype} {[*words.shape]}", f"integers [B, {num_tokens}]")
        check_numbers("words", words, 0, num_words, f"in 0..{num_words}, 0 for none")
