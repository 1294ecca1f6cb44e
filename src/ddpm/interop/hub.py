"""The Hugging Face hub: names such as hf:OWNER/NAME@REVISION, their folders in its cache, downloads and uploads.

Needs huggingface_hub: pip install ddpm[hub]. A download takes settings, the words of tokenizers and weights, no more.
"""

import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from ddpm.base import check

REPO = re.compile(r"(?!.*(\.\.|--))\w[\w.-]*/\w[\w.-]*", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)\w[\w./-]*", re.ASCII)
SNAPSHOT = re.compile(r"models--([^/]+?)--([^/]+)/snapshots/([0-9a-f]{40})")
SETTINGS = ["*.json", "*merges.txt", "*vocab.txt", "*spiece.model"]
WEIGHTS = ["*model.safetensors", "*model-?????-of-?????.safetensors"], ["*model.bin"]
"""The second where a repository has none of the first. Variants such as model.fp16.safetensors are not downloaded."""


class HubName(NamedTuple):
    """repo: OWNER/NAME. revision: a branch, a tag or a commit."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"hf:{self.repo}@{self.revision}"


def is_hub_name(ckpt: str) -> bool:
    return ckpt.startswith("hf:")


def parse(ckpt: str, field: str) -> HubName:
    """field: what errors call the option that gave the name."""
    repo, at, revision = ckpt.removeprefix("hf:").partition("@")
    if not REPO.fullmatch(repo) or (at and not REVISION.fullmatch(revision)):
        check.fail(field, ckpt, "hf:OWNER/NAME or hf:OWNER/NAME@REVISION")
    return HubName(repo, revision or "main")


def hub_name_of(path: Path) -> HubName | None:
    """The name, with its commit, of a folder in a cache of the hub; None for another path."""
    found = SNAPSHOT.fullmatch("/".join(path.absolute().parts[-3:]))
    return HubName(f"{found[1]}/{found[2]}", found[3]) if found else None


def describe_path(path: Path) -> str:
    """What a result records for a checkpoint: its path, or its name on the hub with the commit."""
    return str(hub_name_of(path) or path)


def library(field: str) -> Any:
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
        import huggingface_hub.utils
    except ImportError:
        raise ValueError(f"{field} needs huggingface_hub, which is not installed: pip install ddpm[hub]") from None
    return huggingface_hub


# Read


def cached_folder(ckpt: str, field: str) -> Path:
    """The folder of a name in the hub's cache. Never uses the network; ValueError if it is not there."""
    name = parse(ckpt, field)
    folder = find_cached(name, field)
    if folder is None:
        raise ValueError(
            f"{field}={ckpt} is not in the hub's cache {cache_folder(field)}, and a stored configuration downloads "
            f"nothing: give {field}={ckpt} in the command, or run {download_command(name)}"
        )
    return folder


def resolve(ckpt: str, field: str) -> HubName:
    """The name with its commit: that of the cache, else that of the hub."""
    name = parse(ckpt, field)
    folder = find_cached(name, field)
    if folder is None:
        with explain_errors(name, field):  # two small files, with which the cache learns the commit
            folder = snapshot(name, field, ["config.json", "model_index.json"])
    return name._replace(revision=folder.name)


def download(name: HubName, field: str) -> None:
    """Put the folder of a name into the cache, unless it is there. One process of a machine downloads, others wait."""
    if find_cached(name, field):
        return
    lock = cache_folder(field) / ".locks" / f"ddpm--{name.repo.replace('/', '--')}.lock"
    with explain_errors(name, field):
        lock.parent.mkdir(parents=True, exist_ok=True)
        with library(field).utils.WeakFileLock(lock):
            folder = find_cached(name, field) or with_weights(name, field)
    if folder is None:
        raise ValueError(f"{field}={name} has no weights that can be read: no *model.safetensors and no *model.bin")


def find_cached(name: HubName, field: str) -> Path | None:
    """The folder in the cache, if it has weights."""
    try:
        return with_weights(name, field, local_files_only=True)
    except FileNotFoundError:  # LocalEntryNotFoundError
        return None


def with_weights(name: HubName, field: str, **options: Any) -> Path | None:
    """The folder with its settings and weights, None if it has no weights."""
    for weights in WEIGHTS:
        folder = snapshot(name, field, [*SETTINGS, *weights], **options)
        if any(path.is_file() for pattern in weights for path in folder.rglob(pattern)):
            return folder
    return None


def snapshot(name: HubName, field: str, patterns: list[str], **options: Any) -> Path:
    load = library(field).snapshot_download
    ignored = ["safety_checker/*"]  # larger than the model
    return Path(load(name.repo, revision=name.revision, allow_patterns=patterns, ignore_patterns=ignored, **options))


def cache_folder(field: str) -> Path:
    return Path(library(field).constants.HF_HUB_CACHE)


def download_command(name: HubName) -> str:
    return f"hf download {name.repo} --revision {name.revision}"


@contextmanager
def explain_errors(name: HubName, field: str) -> Iterator[None]:
    """Turn errors of a download into one line with a remedy."""
    errors = library(field).errors
    login = "log in with hf auth login, or set HF_TOKEN"
    try:
        yield
    except errors.GatedRepoError:
        problem = f"asks for consent: accept its terms on its page, then {login}"
    except errors.RepositoryNotFoundError:
        problem = f"does not exist on the hub, or is private: check the name, or {login}"
    except errors.RevisionNotFoundError:
        problem = "does not exist: its repository has no such branch, tag or commit"
    except Exception as error:  # of several HTTP libraries
        problem = (
            f"is not in the hub's cache {cache_folder(field)} and cannot be downloaded ({type(error).__name__}): where "
            f"there is a network, run {download_command(name)}, and copy its cache here, or set HF_HOME to the copy"
        )
    else:
        return
    raise ValueError(f"{field}={name} {problem}")


# Write


def check_upload(repo: str) -> None:
    """Raise ValueError, before any work, for what is no name of a repository."""
    if not REPO.fullmatch(repo):
        check.fail("push", repo, "OWNER/NAME")
    library("push")


def upload(folder: Path, repo: str) -> str | None:
    """Upload a folder. Returns the reason if there is no token or no network; ValueError if the hub refuses.

    A new repository is private: its owner chooses a license first, and then who may see it.
    """
    hub = library("push")
    if hub.get_token() is None:
        return "there is no token (hf auth login stores one, or set HF_TOKEN)"
    try:
        hub.create_repo(repo, private=True, exist_ok=True)
        hub.upload_folder(repo_id=repo, folder_path=folder, commit_message="Upload a model exported by ddpm")
    except hub.errors.HfHubHTTPError as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        remedy = f"then run {upload_command(folder, repo)}"
        raise ValueError(f"push={repo} was refused by the hub ({reason}); check name and token, {remedy}") from None
    except Exception as error:  # of several HTTP libraries
        return f"the hub cannot be reached ({type(error).__name__})"
    return None


def upload_command(folder: Path, repo: str) -> str:
    return f"hf upload {repo} {shlex.quote(str(folder))} . --private"
