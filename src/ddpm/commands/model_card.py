"""The model card of an exported folder: README.md in the format of the Hugging Face hub, without paths of this machine.

Texts of data, such as the names of classes, are escaped: they neither format the page nor link to another one.
"""

import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ddpm.base.untrusted import json_file, printable
from ddpm.base.weights_hash import weights_hash
from ddpm.checkpoint import groups
from ddpm.checkpoint.stored_config import FITTED
from ddpm.evaluation.table import format_estimate
from ddpm.evaluation.targets import checkpoint_step
from ddpm.generation.identity import describe_part, run_folder_of
from ddpm.interop.diffusers_classes import CLASS_NAME
from ddpm.metrics.protocol import Result, read_result
from ddpm.model.diffusion_model import DiffusionModel

PICTURE = "samples.png"
NUM_CLASSES = 20  # that are named
SOURCES = ("source", "test_source")
PATH = re.compile(r"(?<![^\s=:('\",])(?:[A-Za-z]:|~)?[\\/]+[\w.][^,;)\]'\"]*")
"""An absolute path, also within a text."""

LICENSE = "No license is stated. Before others use this model, choose one and add `license:` to the head of this file."


def write_card(
    folder: Path, repo: str, path: Path, model: DiffusionModel, stored: DictConfig, license: str = ""
) -> None:
    """Write README.md and the grid of samples of the run's training, and remove absolute paths from config.json.

    path: the checkpoint that was exported. stored: its configuration. license: its identifier, empty if none is stated.
    """
    of_diffusers, network = opened_in_diffusers(folder, repo), model.weights(model.predict_weights)
    for file in folder.rglob("config.json"):
        file.write_text(json.dumps(without_paths(json_file(file)), indent=2) + "\n")
    shown = copy_grid(folder, path, model)
    fields = {"classifies": "guidance.classifier", "reconstructs": "codec.first_stage"}
    field = next((name for kind, name in fields.items() if getattr(network, kind, False)), "ckpt")
    use = of_diffusers or f"{field}=hf:{repo}"
    head = f"license: {license}\n" if license else ""
    parts = [
        f"---\nlibrary_name: {'diffusers' if of_diffusers else 'ddpm'}\ntags: [diffusion]\n{head}---",
        f"# {escape(repo.partition('/')[2])}",
        f"{type(network).__name__}, {escape(model.describe_weights(model.predict_weights))} weights, exported by ddpm. "
        f"Use it as `{use}`.",
        *([f"![samples of the training]({PICTURE})"] if shown else []),
        "## Model",
        table(["group", "option"], options(stored)),
        *class_names(model),
        "## Training",
        training(path, stored),
        *metrics(path, model),
        f"## License\n\n{escape(license) or LICENSE}",
    ]
    (folder / "README.md").write_text("\n\n".join(parts) + "\n")


def opened_in_diffusers(folder: Path, repo: str) -> str:
    """The call that opens an exported folder in diffusers; "" for a folder of this program."""
    for name in ("model_index.json", "config.json"):
        about = json_file(folder / name) if (folder / name).is_file() else {}
        if about.get("_class_name") == CLASS_NAME:
            return f'DiffusionPipeline.from_pretrained("{repo}", trust_remote_code=True)'
        if "_class_name" in about:
            return f'{about["_class_name"]}.from_pretrained("{repo}")'
    return ""


def escape(text: object) -> str:
    """A text as it is, for one line of Markdown."""
    line = " ".join(PATH.sub("(a path)", printable(str(text))).split())
    return re.sub(r'([!"#$%&*+./:;<>?@\[\\\]^_`{|}~])', r"\\\1", line)


def without_paths(value: Any) -> Any:
    """Plain containers with None in the place of absolute paths. Fitted values, as names of classes, are no paths.

    Sources of data are left out if one has a path, so that a command that needs the data asks for them.
    """
    if isinstance(value, dict):
        kept = {key: each if key == FITTED else without_paths(each) for key, each in value.items()}
        left_out = SOURCES if any(kept.get(key) != value.get(key) for key in SOURCES) else ()
        return {key: each for key, each in kept.items() if key not in left_out}
    if isinstance(value, list):
        return [without_paths(each) for each in value]
    return None if isinstance(value, str) and PATH.match(value) else value


def table(head: list[str], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escape(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def options(stored: DictConfig) -> list[list[str]]:
    """The name and settings of the option of each group."""
    names = [name for name in groups.group_names(builds=True) if name in stored]
    parts = {name: OmegaConf.to_container(stored[name], resolve=True) for name in names}
    return [[name, describe_part(without_paths(part))] for name, part in parts.items()]


def class_names(model: DiffusionModel) -> list[str]:
    names = list(model.config[FITTED].get("cond", {}).get("names") or ())
    more = f" and {len(names) - NUM_CLASSES:,} more" if len(names) > NUM_CLASSES else ""
    return [f"Classes: {', '.join(map(escape, names[:NUM_CLASSES]))}{more}."] if names else []


def training(path: Path, stored: DictConfig) -> str:
    step = checkpoint_step(path)
    if step is None:
        return "Not known: the model was exported from weights alone."
    images = f"{step * stored.data.batch_size:,} (batches of {stored.data.batch_size:,})"
    about = {"data": stored.data.get("name"), "steps": f"{step:,}", "images": images, "seed": stored.seed}
    return table([*about], [[str(value) for value in about.values()]])


def metrics(path: Path, model: DiffusionModel) -> list[str]:
    """The results of these weights in the folder of the run, each with its protocol."""
    rows = []
    for file in sorted((run_folder_of(path) / "evaluations").glob("*.json")):
        try:
            result = read_result(file)
        except ValueError as error:
            print(f"{error}; this file is left out of the model card")
            continue
        if is_of(result, path, model):
            rows += [[name, format_estimate(each), protocol(result, name)] for name, each in result.estimates.items()]
    return ["## Metrics", table(["metric", "value", "protocol"], rows)] if rows else []


def is_of(result: Result, path: Path, model: DiffusionModel) -> bool:
    """Whether the weights are those of a result. Results of a training have no hash, but the step."""
    subject, weights = result.subject, model.predict_weights
    if "weights_sha256" in subject:
        return subject["weights_sha256"] == weights_hash(model.weights(weights))
    same_step = subject.get("step") is not None and subject["step"] == checkpoint_step(path)
    return same_step and subject.get("weights") == model.describe_weights(weights)


def protocol(result: Result, name: str) -> str:
    how, about = result.protocol, result.subject
    parts = {
        **{field: about[field] for field in ("sampler", "steps", "seed", "guidance") if field in about},
        **{field: value for field, value in asdict(how).items() if field != "scores"},
        "score": how.scores.get(name, "as named"),
    }
    return ", ".join(f"{key}: {value}" for key, value in parts.items())


def copy_grid(folder: Path, path: Path, model: DiffusionModel) -> bool:
    """Copy the grid that the training drew with these weights at this step, if there is one."""
    step = checkpoint_step(path)
    if step is None:
        return False
    grid = run_folder_of(path) / "samples" / model.predict_weights / f"{step:08d}.png"
    if grid.is_file():
        shutil.copyfile(grid, folder / PICTURE)
    return grid.is_file()
