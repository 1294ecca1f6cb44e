"""Tokenizers of the transformers package, from local files. Needs transformers: pip install ddpm[text]."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ddpm.base import check

VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "spiece.model")
"""Files of a tokenizer. If a folder has none, transformers would make a tokenizer that knows no words."""


def transformers() -> Any:
    try:
        import transformers as module
    except ModuleNotFoundError:
        raise ValueError(
            "text=clip, text=t5 and text=ldm_bert need transformers, which is not installed: pip install ddpm[text]"
        ) from None
    return module


def local_folder(field: str, path: str) -> Path:
    """The folder `path`, or that of the repository `path` in the Hugging Face hub's cache. Nothing is downloaded."""
    transformers()
    from huggingface_hub import snapshot_download  # a dependency of transformers

    if not isinstance(path, str) or not path:
        check.fail(field, path, "a folder, or the name of a repository of the Hugging Face hub")
    if (folder := Path(path).expanduser()).is_dir():
        return folder
    try:
        return Path(snapshot_download(path, local_files_only=True))
    except (OSError, ValueError):
        remedy = f"a folder, or a repository in the cache of the Hugging Face hub (to put it there: hf download {path})"
        check.fail(field, path, remedy)


@contextmanager
def quiet_reading(field: str, folder: Path, what: str) -> Iterator[None]:
    """Errors of transformers within it become one line. Its warnings are hidden, because callers check the result."""
    logging = transformers().utils.logging
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    except Exception as error:  # whatever missing, damaged or hostile files provoke; none of their code is run
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{field}: {folder} has no {what} that can be read ({reason:.200})") from None
    finally:
        logging.set_verbosity(level)


def read_tokenizer(field: str, path: str, num_tokens: int, num_words: int) -> Any:
    """The tokenizer in a folder or in the hub's cache. field: names `path` in errors. num_words: of the encoder."""
    folder = local_folder(field, path)
    if not any((folder / name).is_file() for name in VOCABULARIES):
        raise ValueError(f"{field}: {folder} has no tokenizer, one of {', '.join(VOCABULARIES)}")
    with quiet_reading(field, folder, "tokenizer"):
        tokenizer = transformers().AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    if not tokenizer.is_fast or tokenizer.pad_token_id is None:
        raise ValueError(f"{field}: the tokenizer in {folder} cannot pad, or has no fast version; use another one")
    if len(tokenizer) > num_words:
        raise ValueError(f"{field}: the tokenizer in {folder} has {len(tokenizer)} words, but the encoder {num_words}")
    check.integer("text.num_tokens", num_tokens, low=tokenizer.num_special_tokens_to_add() + 1)
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path, num_tokens: int) -> str:
    """Write its files, with the number of tokens to which texts are padded. Returns the name of its class."""
    tokenizer.model_max_length = num_tokens
    tokenizer.save_pretrained(folder)
    return type(tokenizer).__name__


def tokenize(tokenizer: Any, texts: Sequence[str], num_tokens: int) -> Tensor:
    """int64 `[B, num_tokens]`, padded or cut. One warning says what is cut."""
    texts = [text.encode(errors="replace").decode() for text in texts]  # lone surrogates are no Unicode
    coded = tokenizer(
        texts,
        padding="max_length",
        truncation=True,
        max_length=num_tokens,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    text_of_row = coded["overflow_to_sample_mapping"]  # a long text has several rows
    first_rows = [row for row, number in enumerate(text_of_row) if row == 0 or number != text_of_row[row - 1]]
    long = [row for row in first_rows if text_of_row[row : row + 2] == 2 * [text_of_row[row]]]
    if long:
        text, end = texts[text_of_row[long[0]]], max(end for _, end in coded["offset_mapping"][long[0]])
        others = f", as are the ends of {len(long) - 1} other texts" if long[1:] else ""
        cut = f"of {text!r:.200}, {text[end:].strip()!r:.200} is cut"
        warnings.warn(f"text.num_tokens={num_tokens}: {cut}{others}", stacklevel=3)
    return torch.tensor([coded["input_ids"][row] for row in first_rows], dtype=torch.int64)
