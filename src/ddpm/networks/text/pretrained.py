"""Frozen text encoders of other authors, read with the transformers package: CLIP and T5."""

from abc import ABC
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, final

from torch import Tensor, nn

from ddpm.base import check
from ddpm.networks.text.frozen import FrozenText
from ddpm.networks.text.tokenizer import (
    local_folder,
    quiet_reading,
    read_tokenizer,
    save_tokenizer,
    tokenize,
    transformers,
)


@dataclass(frozen=True)
class Pretrained(ABC):
    """path: folder of the encoder, or its repository in the hub's cache. tokenizer: the same for the tokenizer; None:
    `path`. skip_layers: number of last layers that are left out; the final norm is not ("clip skip"). memory_limit_mb:
    of the embeddings that are kept (`FrozenText`). Files are read when they are used first."""

    path: str
    tokenizer: str | None = None
    num_tokens: check.PositiveInt = 77
    skip_layers: int = 0
    memory_limit_mb: check.NonNegativeNumber = 2048
    trained: ClassVar[bool] = False
    model: ClassVar[str]
    """Name of the encoder's class in transformers."""

    def __post_init__(self) -> None:
        check.fields(self, "text.")

    @cached_property
    def _tokenizer(self) -> Any:
        field = "text.path" if self.tokenizer is None else "text.tokenizer"
        return read_tokenizer(field, self.tokenizer or self.path, self.num_tokens, self._config.vocab_size)

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        return tokenize(self._tokenizer, texts, self.num_tokens)

    @cached_property
    def _config(self) -> Any:
        folder, kind = local_folder("text.path", self.path), getattr(transformers(), self.model).config_class
        with quiet_reading("text.path", folder, f"configuration of a {self.model}"):
            config = kind.from_pretrained(folder / "config.json", local_files_only=True)
        if config.model_type != kind.model_type:
            raise ValueError(f"text.path: {folder} must hold a {self.model}, but its model_type is {config.model_type}")
        check.integer("text.num_tokens", self.num_tokens, low=1, high=getattr(config, "max_position_embeddings", None))
        check.integer("text.skip_layers", self.skip_layers, low=0, high=config.num_hidden_layers - 1)
        config.num_hidden_layers -= self.skip_layers
        return config

    @property
    def token_channels(self) -> int:
        return self._config.hidden_size

    def encoder(self) -> nn.Module:
        """float32, on the CPU, without gradients."""
        folder, config = local_folder("text.path", self.path), self._config
        with quiet_reading("text.path", folder, self.model):
            model, report = getattr(transformers(), self.model).from_pretrained(
                folder,
                config=config,
                attn_implementation="sdpa",  # a configuration can name a kernel, which would be downloaded and run
                local_files_only=True,
                output_loading_info=True,
            )
        if lacking := sorted(report["missing_keys"]):
            raise ValueError(f"text.path: {folder} lacks {len(lacking)} weights of a {self.model}: {lacking[0]}")
        return LastHiddenState(model.float())

    def save(self, encoder: Path, tokenizer: Path) -> str:
        """Write the files of both into folders. Returns the name of the tokenizer's class."""
        self.encoder().model.save_pretrained(encoder)
        return save_tokenizer(self._tokenizer, tokenizer, self.num_tokens)

    @cached_property
    def embed(self) -> FrozenText:
        return FrozenText(self, self.memory_limit_mb)


@final
@dataclass(frozen=True)
class Clip(Pretrained):
    """The text encoder of CLIP (Radford et al. 2021)."""

    model: ClassVar[str] = "CLIPTextModel"


@final
@dataclass(frozen=True)
class T5(Pretrained):
    """The encoder of T5 (Raffel et al. 2020), without an attention mask, as in the code of Rombach et al. 2022."""

    model: ClassVar[str] = "T5EncoderModel"


class LastHiddenState(nn.Module):
    """int64 `[B, N]` to `[B, N, C]`; frozen. model: an encoder of transformers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.eval().requires_grad_(False)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.model(input_ids=numbers).last_hidden_state
