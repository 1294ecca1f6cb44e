"""The text encoder that Rombach et al. 2022 train with their text-to-image models (appendix E.2.1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.networks.settings import BLOCK_BYTES, check_numbers
from ddpm.networks.text.tokenizer import read_tokenizer, save_tokenizer, tokenize
from ddpm.networks.transformer import TransformerLayer, feed_forward


@dataclass(frozen=True)
class LdmBert:
    """path: folder of the tokenizer, or its repository in the hub's cache; published: that of bert-base-uncased.
    token_channels, depth, num_heads, head_channels: of the transformer. num_words: size of its vocabulary."""

    path: str
    num_tokens: check.PositiveInt = 77
    token_channels: check.PositiveInt = 1280
    depth: check.PositiveInt = 32
    num_heads: check.PositiveInt = 8
    head_channels: check.PositiveInt = 64
    num_words: check.PositiveInt = 30522
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check.fields(self, "text.")
        vectors = 4 * (self.num_words + self.num_tokens) * self.token_channels
        require_memory(vectors + self.depth * BLOCK_BYTES, f"text.num_words={self.num_words} depth={self.depth}")

    @cached_property
    def _tokenizer(self) -> Any:
        return read_tokenizer("text.path", self.path, self.num_tokens, self.num_words)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return tokenize(self._tokenizer, texts, self.num_tokens)

    def encoder(self) -> nn.Module:
        return BertEncoder(self)

    def save_tokenizer(self, folder: Path) -> str:
        return save_tokenizer(self._tokenizer, folder, self.num_tokens)


class BertEncoder(nn.Module):
    """int64 `[B, N]` in 0..num_words-1 to `[B, N, C]`, without the authors' logits, which nothing uses.

    Linear layers start as the others of this package, not with torch's default as the authors' do.
    """

    def __init__(self, text: LdmBert) -> None:
        super().__init__()
        channels, heads = text.token_channels, text.num_heads
        self.words = nn.Embedding(text.num_words, channels)
        self.places = nn.Embedding(text.num_tokens, channels)
        for table in (self.words, self.places):
            nn.init.normal_(table.weight, std=0.02)
        layer = partial(TransformerLayer, channels, heads, None, text.head_channels, feed_forward)
        self.layers = nn.Sequential(*(layer() for _ in range(text.depth)))
        self.norm = nn.LayerNorm(channels)

    def forward(self, numbers: Tensor) -> Tensor:
        check_numbers("caption", numbers, 0, self.words.num_embeddings - 1, "numbers of tokens")
        return self.norm(self.layers(self.words(numbers) + self.places.weight))
