"""Captions of the data as a condition, through a text encoder (Rombach et al. 2022, section 3.3)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond

CAPTION, TOKENS = "caption", "tokens"
"""Conditions: token numbers int64 `[B, N]` for a trained encoder; embeddings float32 `[B, N, C]` of a frozen one."""


@dataclass(frozen=True)
class Caption:
    """The caption of each image. An empty text is no caption.

    dropout: share of training images whose caption is dropped, for guidance=classifier_free. negative: text in place of
    a dropped caption, for samples (a "negative prompt"). Values fitted to the data: vocabulary, the words of
    text=words; encoder_sha256, of the weights of a frozen encoder; examples, some captions, which are the prompts of
    samples unless a command requests others.
    """

    text: Any  # a Text of ddpm.networks.text; if it is frozen, with `embed`, a FrozenText
    dropout: check.Share
    negative: str = ""
    vocabulary: Sequence[str] | None = None
    encoder_sha256: str | None = None
    examples: Sequence[str] = ()
    _kept: dict[Any, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)
    needs_images: ClassVar[bool] = False
    reads_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.text:
            raise ValueError("cond=caption needs a text encoder: text=words, text=clip, text=t5 or text=ldm_bert")
        check.fields(self)
        if self.vocabulary is not None:
            object.__setattr__(self, "text", self.text.with_vocabulary(self.vocabulary))

    @property
    def name(self) -> str:
        return CAPTION if self.text.trained else TOKENS

    @property
    def network_settings(self) -> Mapping[str, Any]:
        if not self.text.trained:
            return {"token_channels": self.text.token_channels}
        return {"vocabulary": None if self.vocabulary is None else list(self.vocabulary)}

    def rows(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """The conditions of texts, on the CPU. Raises ValueError for a frozen encoder of other weights."""
        if self.text.trained:
            return {self.name: self.text.tokenize(texts)}
        if self.encoder_sha256 and self.text.embed.sha256 != self.encoder_sha256:
            raise ValueError(
                f"the text encoder at text.path has the hash {self.text.embed.sha256}, but the model was trained with "
                f"that of {self.encoder_sha256}; set text.path to the folder of that one"
            )
        return {self.name: self.text.embed(texts)}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        """Of a batch with what `rows` returned for its captions. Raises ValueError for a batch without captions."""
        if self.name not in batch:
            raise ValueError("cond=caption needs a caption of each image, and this batch has none")
        return {self.name: batch[self.name]}

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, **self._repeated(self.negative, cond[self.name])}

    def default_conditions(self, ids: Tensor) -> Cond:
        """Cycles through the examples."""
        texts = [self.default_prompts[i % len(self.default_prompts)] for i in ids.tolist()]
        return {name: values.to(ids.device) for name, values in self.rows(texts).items()}

    @property
    def default_prompts(self) -> Sequence[str]:
        return list(self.examples) or [""]

    def resolve(self, prompts: str | Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
        texts = [str(prompt) for prompt in ([prompts] if isinstance(prompts, str) else prompts)]
        if not texts:
            check.fail("prompt", prompts, "a text or a list of texts")
        return self.rows(texts), [text or "none" for text in texts]

    def _repeated(self, text: str, like: Tensor) -> dict[str, Tensor]:
        place = text, like.device  # kept there, so that no step of a training or sampler waits for the device
        if place not in self._kept:
            with torch.inference_mode(False):  # a training step may use it later
                self._kept[place] = self.rows([text])[self.name].to(like.device)
        values = self._kept[place]
        return {self.name: values.expand(len(like), *values.shape[1:])}


def example_captions(captions: Sequence[str], num: int = 8) -> list[str]:
    """Up to `num` different captions, evenly spaced in the order of their first appearance."""
    known = list(dict.fromkeys(caption for caption in captions if caption))
    return [known[int(i)] for i in torch.linspace(0, len(known) - 1, min(num, len(known))).round()]
