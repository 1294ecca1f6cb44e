"""The interface of text encoders."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor, nn


class Text(Protocol):
    """A text encoder: how texts become token numbers, and the network that embeds these.

    "" is the text of a dropped caption. No attention mask exists: padding is a token as any other.
    """

    @property
    def num_tokens(self) -> int:
        """N, to which each text is padded or cut."""

    @property
    def token_channels(self) -> int:
        """C, the size of an embedding."""

    @property
    def trained(self) -> bool:
        """Whether the encoder is trained with the diffusion model and saved with it; else it is frozen."""

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 `[B, N]`."""

    def encoder(self) -> nn.Module:
        """A new network from token numbers `[B, N]` to embeddings `[B, N, C]`."""
