"""A word for the class, and words for attributes that are measured in the image, as conditions.

Any labelled data set has such words, and they need no text encoder. `caption_text` conditions on captions of the data.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor

from ddpm.base import check
from ddpm.base.types import Cond

WORDS = "words"
"""Name of the condition that holds captions: word numbers int64 `[B, N]`, 0 for no word."""

Measure = Callable[[Tensor], Tensor]
"""Maps images `[B, C, H, W]` in [-1, 1] to one number for each, float64 `[B]`."""


@dataclass(frozen=True)
class Attribute:
    """Images with bounds[i - 1] < measure <= bounds[i] get words[i]; None: such images get no word."""

    measure: Measure
    bounds: Sequence[check.Number]
    words: Sequence[str | None]

    def __post_init__(self) -> None:
        check.fields(self)
        bounds = list(self.bounds)
        if not bounds or sorted(set(bounds)) != bounds:
            check.fail("bounds", bounds, "one or more rising numbers")
        if len(self.words) != len(bounds) + 1:
            check.fail("words", list(self.words), f"{len(bounds) + 1}, one more than the bounds; null for no word")
        if not self.vocabulary:
            check.fail("words", list(self.words), "at least one word that is not null")

    @property
    def vocabulary(self) -> list[str]:
        return [word for word in self.words if word is not None]

    def bucket(self, images: Tensor) -> Tensor:
        """The index i of words[i] for each image, int64 `[B]`."""
        bounds = torch.tensor(self.bounds, dtype=torch.float64, device=images.device)
        return torch.bucketize(self.measure(images), bounds)


@dataclass(frozen=True)
class AttributeWords:
    """A caption has one place for each kind of word: the attributes in their order, then the class.

    Each kind has at most one word in a caption, and a prompt may list the words in any order. Images with medium values
    of an attribute may get no word for it, so the network also learns captions that leave a word out.
    names: a word for each class. dropout: share of images whose whole caption is dropped, for guidance=classifier_free.
    """

    num_classes: check.PositiveInt
    names: Sequence[str]
    attributes: Mapping[str, Attribute]
    dropout: check.Share
    needs_images: ClassVar[bool] = False

    def __post_init__(self) -> None:
        check.fields(self)
        if not self.names or len(self.names) != self.num_classes:
            check.fail("names", list(self.names or []), f"a word for each of the {self.num_classes} classes")
        for word in self.vocabulary:
            if not isinstance(word, str) or word.lower().split() != [word]:
                check.fail("names", word, "words in lower case without spaces, as [zero, one]")
        if len(set(self.vocabulary)) < len(self.vocabulary):
            check.fail("names", list(self.vocabulary), "different words, of classes and attributes together")

    @property
    def reads_images(self) -> bool:
        return bool(self.attributes)

    @property
    def kinds(self) -> list[list[str]]:
        """The possible words at each place."""
        return [*(each.vocabulary for each in self.attributes.values()), list(self.names)]

    @property
    def vocabulary(self) -> list[str]:
        """Word number i is vocabulary[i - 1]."""
        return list(chain(*self.kinds))

    @property
    def network_settings(self) -> Mapping[str, Any]:
        return {"num_words": len(self.vocabulary), "num_tokens": len(self.kinds)}

    def of(self, batch: Mapping[str, Tensor]) -> Cond:
        """The batch's own words if it has any; else words for its labels and, if there are images, their attributes."""
        if WORDS in batch:
            return {WORDS: batch[WORDS]}
        label = batch["label"]
        words = torch.zeros(len(label), len(self.kinds), dtype=torch.int64, device=label.device)
        words[:, -1] = take_or_zero(self._numbers(self.names), label)
        if "image" in batch:
            for place, attribute in enumerate(self.attributes.values()):
                words[:, place] = take_or_zero(self._numbers(attribute.words), attribute.bucket(batch["image"]))
        return {WORDS: words}

    def unconditional(self, cond: Cond) -> Cond:
        return {**cond, WORDS: torch.zeros_like(cond[WORDS])}

    def default_conditions(self, ids: Tensor) -> Cond:
        """Cycles through all captions: the class changes fastest, then the first attribute, and so on."""
        words, turn = [], ids
        for kind in (self.kinds[-1], *self.kinds[:-1]):
            words.append(take_or_zero(self._numbers(kind), turn % len(kind)))
            turn = turn // len(kind)
        return {WORDS: torch.stack([*words[1:], words[0]], dim=1)}

    @property
    def default_prompts(self) -> Sequence[str]:
        return list(self.names)

    def resolve(self, prompts: str | Sequence[str]) -> tuple[dict[str, Tensor], list[str]]:
        """Of prompts such as "bold three"; "" is no words."""
        each = prompts if isinstance(prompts, Sequence) and not isinstance(prompts, str) else [prompts]
        if not each:
            check.fail("prompt", prompts, "a text or a list of texts")
        words = torch.tensor([self._words(str(prompt)) for prompt in each])
        return {WORDS: words}, [text or "none" for text in self.text(words)]

    def text(self, words: Tensor) -> list[str]:
        """The prompts of captions int64 `[B, N]`."""
        return [" ".join(self.vocabulary[number - 1] for number in row if number) for row in words.tolist()]

    def _words(self, prompt: str) -> list[int]:
        words = [0] * len(self.kinds)
        for word in prompt.lower().split():
            place = next((place for place, kind in enumerate(self.kinds) if word in kind), None)
            if place is None:
                known = f"words of {', '.join(self.vocabulary)}"
                check.fail("prompt", prompt, known, check.suggestion(word, self.vocabulary))
            if words[place]:
                check.fail("prompt", prompt, f"at most one word of {', '.join(self.kinds[place])}")
            words[place] = self.vocabulary.index(word) + 1
        return words

    def _numbers(self, words: Sequence[str | None]) -> list[int]:
        return [0 if word is None else self.vocabulary.index(word) + 1 for word in words]


def take_or_zero(numbers: Sequence[int], place: Tensor) -> Tensor:
    """numbers[place] for a place int64 `[B]`; 0 for a place of -1."""
    return torch.tensor([*numbers, 0], device=place.device)[place]
