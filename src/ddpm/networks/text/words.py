"""A small text encoder over the data's own words, trained together with the diffusion model. It needs no download."""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from ddpm.base import check
from ddpm.base.memory import require_memory
from ddpm.networks.settings import check_numbers
from ddpm.networks.transformer import TransformerLayer

LISTED = 30
"""Words of the vocabulary that an error names."""


def words_of(text: str) -> list[str]:
    """Words in lower case and single other characters, without white space."""
    return re.findall(r"\w+|[^\w\s]", text.lower())


@dataclass(frozen=True)
class Words:
    """num_tokens: number of words of a text that are read. token_channels: size of an embedding. depth, num_heads: of
    the transformer. vocabulary: the known words, found in the captions of the training data."""

    num_tokens: check.PositiveInt
    token_channels: check.PositiveInt
    depth: check.NonNegativeInt
    num_heads: check.PositiveInt
    vocabulary: tuple[str, ...] | None = None
    trained: ClassVar[bool] = True

    def __post_init__(self) -> None:
        check.fields(self, "text.")
        if self.token_channels % self.num_heads:
            check.fail("text.num_heads", self.num_heads, f"a divisor of token_channels = {self.token_channels}")

    @staticmethod
    def vocabulary_of(captions: Iterable[str]) -> list[str]:
        return sorted({word for caption in set(captions) for word in words_of(caption)})

    def with_vocabulary(self, vocabulary: Sequence[str]) -> Self:
        return replace(self, vocabulary=tuple(vocabulary))

    @cached_property
    def _number(self) -> dict[str, int]:
        if self.vocabulary is None:
            check.fail("text.vocabulary", None, "the words of the captions; cond=caption sets it")
        return {word: place + 1 for place, word in enumerate(self.vocabulary)}

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """int64 `[B, num_tokens]`: 1 + the place of each word in the vocabulary; 0 after the last word.

        Raises ValueError for a word that is not in the vocabulary.
        """
        number = self._number
        rows = torch.zeros(len(texts), self.num_tokens, dtype=torch.int64)
        for row, text in zip(rows, texts, strict=True):
            words = words_of(text)
            for word in words:
                if word not in number:
                    listed = ", ".join(self.vocabulary[:LISTED]) + ", ..." * (len(number) > LISTED)
                    known = f"words of the training captions ({word!r} is not among these {len(number)}: {listed})"
                    check.fail("prompt", text, known, check.suggestion(word, self.vocabulary))
            if len(words) > self.num_tokens:
                cut = " ".join(words[self.num_tokens :])
                warnings.warn(f"text.num_tokens={self.num_tokens}: of {text!r:.200}, {cut!r:.200} is cut", stacklevel=2)
            kept = words[: self.num_tokens]
            row[: len(kept)] = torch.tensor([number[word] for word in kept], dtype=torch.int64)
        return rows

    def encoder(self) -> nn.Module:
        return WordEncoder(len(self._number), self.num_tokens, self.token_channels, self.depth, self.num_heads)


class WordEncoder(nn.Module):
    """int64 `[B, N]` in 0..num_words to `[B, N, channels]`: embeddings of words and places, then self-attention.

    Number 0, no word, has an embedding too, so that the length of a text needs no mask, as in the text encoder of
    Rombach et al. 2022.
    """

    def __init__(self, num_words: int, num_tokens: int, channels: int, depth: int, num_heads: int) -> None:
        super().__init__()
        require_memory(4 * (num_words + num_tokens) * channels, f"{num_words:,} words of {channels} channels")
        self.words = nn.Embedding(num_words + 1, channels)
        self.places = nn.Parameter(torch.randn(num_tokens, channels))
        self.layers = nn.Sequential(*(TransformerLayer(channels, num_heads, None) for _ in range(depth)))
        self.norm = nn.LayerNorm(channels)

    def forward(self, numbers: Tensor) -> Tensor:
        check_numbers("caption", numbers, 0, self.words.num_embeddings - 1, "numbers of words")
        return self.norm(self.layers(self.words(numbers) + self.places))
