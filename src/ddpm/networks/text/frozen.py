"""Embeddings of texts by a frozen encoder, each computed once."""

import warnings
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import Tensor, nn

from ddpm.base.weights_hash import weights_hash
from ddpm.networks.text.base import Text


class FrozenText:
    """`embed(texts) -> [B, N, C]`, float32. memory_limit_mb: if it is used up, no further embeddings are kept.

    The encoder is read when it is used first. It embeds one text at a time, so that an embedding depends neither on the
    other texts nor on what was computed before.
    """

    def __init__(self, text: Text, memory_limit_mb: float = 2048) -> None:
        self.text, self.memory_limit_mb = text, memory_limit_mb
        self._kept: dict[str, Tensor] = {}
        self._free_bytes = int(memory_limit_mb * 1e6)

    @cached_property
    def encoder(self) -> nn.Module:
        return self.text.encoder()

    @cached_property
    def sha256(self) -> str:
        """Of the encoder's weights."""
        return weights_hash(self.encoder)

    def __call__(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """device: of the computation and of the result. Embeddings are kept on the CPU."""
        known = {text: self._kept.get(text) for text in texts}
        rows = {text: self._compute(text, device) if row is None else row for text, row in known.items()}
        return torch.stack([rows[text] for text in texts]).to(device)

    def _compute(self, text: str, device: torch.device | str) -> Tensor:
        encoder, numbers = self.encoder.to(device), self.text.tokenize([text]).to(device)
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            row = encoder(numbers)[0].float().cpu()
        if row.nbytes <= self._free_bytes:
            self._kept[text] = row
            self._free_bytes -= row.nbytes
        else:
            limit = f"text.memory_limit_mb={self.memory_limit_mb:g}"
            warnings.warn(f"{limit} is used up: embeddings of further texts are computed each time", stacklevel=3)
        return row
