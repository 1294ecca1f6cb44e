"""Files from strangers are data: none of these leaves a mark, and each gets one error that names it."""

import ast
import builtins
import copy
import json
import os
import pickle
import re
import struct
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from processes import Command
from torch import nn

from ddpm.checkpoint import groups as groups_table
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.checkpoint.stored_config import PARTS, is_ours
from ddpm.config import build, load
from ddpm.interop import diffusers
from ddpm.metrics.extractors.clip import Clip
from ddpm.metrics.extractors.dinov2 import Dinov2
from ddpm.metrics.extractors.inception import Inception
from ddpm.metrics.extractors.module import Module
from ddpm.metrics.protocol import read_result
from ddpm.metrics.statistics import read_statistics
from ddpm.networks import UNet
from ddpm.runs.portable import to_portable
from ddpm.training.wandb_run import reopen_run

ROOT = Path(__file__).resolve().parents[1]
NOTHING = OmegaConf.create({})


class Call:
    """Unpickled, it calls a function."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.fixture
def mark(tmp_path):
    """A path that a hostile file tries to make."""
    path = tmp_path / "mark"
    yield path
    assert not path.exists(), "the file left its mark"


SOUND = {}


@pytest.fixture
def stored(small):
    """What a training stores of a small model, made once and copied, to be spoiled."""
    if not SOUND:
        module = build.module(small()).model
        SOUND.update(config=module.config, state_dict=module.state_dict(), global_step=4)
    return copy.deepcopy(SOUND)


@pytest.fixture
def refused(tmp_path):
    """`refused(stored)`: the one error that a checkpoint of this content gives."""

    def error_of(content, save=torch.save):
        path = tmp_path / "evil.ckpt"
        save(content, path)
        with pytest.raises(ValueError) as caught:
            load.from_checkpoint(path, NOTHING)
        assert "weights_only" not in str(caught.value), "no advice to trust the file"
        assert "evil.ckpt" in str(caught.value)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    return error_of


def as_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


def in_the_older_format(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def test_a_sound_checkpoint_is_loaded(stored, tmp_path):
    torch.save(stored, tmp_path / "good.ckpt")
    module, _ = load.from_checkpoint(tmp_path / "good.ckpt", NOTHING)
    for key, value in module.state_dict().items():
        if isinstance(value, torch.Tensor):
            assert torch.equal(value, stored["state_dict"][key])


def dotted(path):
    return ".".join(path.relative_to(ROOT / "src").with_suffix("").parts)


# 1. Pickles


CALLS = {
    "a command": lambda mark: Call(os.system, f"touch {mark}"),
    "a file": lambda mark: Call(builtins.open, str(mark), "w"),
    "an expression": lambda mark: Call(builtins.eval, f"open({str(mark)!r}, 'w')"),
    "a folder": lambda mark: Call(os.mkdir, str(mark)),
}


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, in_the_older_format, as_pickle])
@pytest.mark.parametrize("call", CALLS)
def test_a_checkpoint_that_calls_something_is_not_read(call, save, mark, refused, tmp_path):
    assert "cannot be read as data" in refused({"config": {}, "state_dict": CALLS[call](mark)}, save)
    with pytest.raises(ValueError, match=r"resume=.*cannot be read as data"):
        read_checkpoint(tmp_path / "evil.ckpt", "resume")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("save", [torch.save, in_the_older_format, as_pickle])
@pytest.mark.parametrize("call", CALLS)
def test_inception_weights_that_call_something_are_not_read(call, save, mark, tmp_path):
    save({"Conv2d_1a_3x3.conv.weight": CALLS[call](mark)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match=r"evil\.pth contains more than tensors"):
        Inception(tmp_path / "evil.pth").to("cpu")


@pytest.mark.parametrize("extractor", [Dinov2, Clip, partial(Module, nn.Linear(1, 1), "mine", 8)])
def test_weights_of_every_extractor_are_read_as_data(extractor, mark, tmp_path):
    torch.save({"weight": CALLS["a command"](mark)}, tmp_path / "evil.pth")
    with pytest.raises(ValueError, match="more than tensors"):
        extractor(weights=tmp_path / "evil.pth").to("cpu")


@pytest.mark.parametrize("name", ["mu", "sigma", "num", "about"])
def test_statistics_of_features_are_never_unpickled(name, mark, tmp_path):
    call = CALLS["a command"](mark)
    arrays = {"mu": np.zeros(2), "sigma": np.eye(2), name: np.array(call, dtype=object)}
    np.savez(tmp_path / "a.npz", **arrays, allow_pickle=True)
    with pytest.raises(ValueError, match="Object arrays cannot be loaded"):
        read_statistics(tmp_path / "a.npz")
    (tmp_path / "b.npz").write_bytes(pickle.dumps({"mu": call}))
    with pytest.raises(ValueError, match=r"b\.npz cannot be read as an \.npz file of numbers"):
        read_statistics(tmp_path / "b.npz")


def test_a_command_leaves_with_code_two_and_one_line(mark, tmp_path):
    torch.save({"config": {}, "state_dict": CALLS["a command"](mark)}, tmp_path / "evil.ckpt")
    process = Command("train.py", "resume=evil.ckpt", "trainer=cpu", folder=tmp_path)
    output, _ = process.communicate()
    assert process.returncode == 2, output
    assert re.search(r"^error: resume=evil\.ckpt cannot be read as data: .*system", output, re.MULTILINE), output
    assert "Traceback" not in output


@pytest.mark.parametrize("data", [b"", b"PK\x03\x04", b"\x80\x02.", b"\x80\x02}q\x00.", bytes(1000)], ids=range(5))
def test_a_damaged_checkpoint_is_one_error(data, refused):
    what = "an empty file" if not data else "a pickle, which is not loaded" if data[:1] == b"\x80" else "incomplete"
    assert f"cannot be read as data: it is {what}" in refused(data, lambda data, path: path.write_bytes(data))


def test_a_pipe_or_a_device_is_no_checkpoint(tmp_path):
    os.mkfifo(tmp_path / "pipe.ckpt")
    (tmp_path / "zero.ckpt").symlink_to("/dev/zero")
    for name in ("pipe.ckpt", "zero.ckpt"):
        with pytest.raises(ValueError, match="ckpt must be a checkpoint file"):
            load.from_checkpoint(tmp_path / name, NOTHING)


# 2. Configurations of plain texts


def with_target(stored, target, **arguments):
    stored["config"]["schedule"] = {"_target_": target, **arguments}
    return stored


TARGETS = [
    *("torch.utils.collect_env.run", "os.system", "builtins.eval", "pandas.eval", "code.InteractiveInterpreter"),
    *("ddpm.config.build.os.system", "ddpm.something.os.system", "ddpm..os.system", "ddpm.diffusion"),
    *("ddpm.config.build.instantiate", "ddpm.base.atomic.write_atomically", "ddpm.metrics.protocol.write_result"),
    *("ddpm.diffusion.schedules.base.torch.hub.load", "ddpm.diffusion.schedules.base.Tensor", "ddpm.diffusion.${name}"),
    *("ddpm.data.sources.cifar10.Cifar10.download", "ddpm.networks.unet.UNet.__init__.__globals__"),
    *("${name}", "", None, 5, ["os.system"], {"a": "os.system"}),
]


@pytest.mark.parametrize("target", TARGETS, ids=str)
def test_a_target_outside_of_the_models_parts_is_not_called(target, stored, mark, refused):
    error = refused(with_target(stored, target, command=f"touch {mark}"))
    assert "names code" in error


PLACES = {
    "an argument": lambda evil: {"num_timesteps": evil},
    "a list": lambda evil: {"num_timesteps": [[1, evil]]},
    "a tuple, which is none in YAML": lambda evil: {"num_timesteps": ({"a": (evil,)},)},
    "_args_": lambda evil: {"_args_": [evil]},
    "_partial_": lambda evil: {"num_timesteps": {**evil, "_partial_": True}},
    "_recursive_": lambda evil: {"_recursive_": False, "num_timesteps": evil},
    "_convert_": lambda evil: {"_convert_": "all", "num_timesteps": evil},
    "_convert_ itself": lambda evil: {"_convert_": evil},
}


@pytest.mark.parametrize("place", PLACES)
def test_a_target_is_found_wherever_it_stands(place, stored, mark, refused):
    evil = {"_target_": "torch.utils.collect_env.run", "command": f"touch {mark}"}
    assert "torch.utils.collect_env.run" in refused(
        with_target(stored, "ddpm.diffusion.schedules.curves.cosine", **PLACES[place](evil))
    )


def test_a_target_in_a_part_that_no_model_reads_is_refused_too(stored, mark, refused):
    stored["config"]["extra"] = {"_target_": "os.system", "command": f"touch {mark}"}
    assert "'os.system'" in refused(stored)


def test_a_configuration_that_is_yaml_in_a_text_is_not_parsed(stored, mark, refused):
    evil = {"_target_": "torch.utils.collect_env.run", "command": f"touch {mark}"}
    stored["config"] = OmegaConf.to_yaml(stored["config"] | {"schedule": evil})
    assert "must be a mapping of groups, got 'str'" in refused(stored)


RESOLVERS = [
    *("${oc.env:HOME}", "a${oc.env:HOME}", "${oc.create:'{_target_: os.system, command: ls}'}", "${oc.decode:'[1]'}"),
    *("${hydra:runtime.cwd}", "${oc.create:${name}}", "${oc.dict.values:data}", "${${name}}", "\\${oc.env:HOME}"),
    *("${now:%Y}", "${oc.select:name}", "${name", "${oc.deprecated:name}"),
]


@pytest.mark.parametrize("value", RESOLVERS)
def test_a_stored_configuration_resolves_nothing_but_references_to_itself(value, stored, refused, monkeypatch):
    monkeypatch.setenv("HOME", "a secret")
    stored["config"]["schedule"]["num_timesteps"] = value
    error = refused(stored)
    assert "has more than a reference to itself at schedule.num_timesteps" in error
    assert "secret" not in error


def test_what_a_run_itself_resolves_is_stored_as_its_value(small, monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    config = small("name='${oc.env:PLACE}'", "data.num_train=${oc.decode:'100'}", "+data.list=['${oc.env:PLACE}',1]")
    stored = to_portable(config)
    assert (stored["name"], stored["data"]["num_train"]) == ("here", 100)
    assert stored["data"]["list"] == ["here", 1]
    assert stored["sampler"]["variance"] == "${variance}"


def laughing(levels):
    """A list that holds 10^levels items, and a few of them in memory."""
    held = [0] * 10
    for _ in range(levels):
        held = [held] * 10
    return held


def nested(levels):
    held = []
    for _ in range(levels):
        held = [held]
    return held


SHAPES = {
    "a list held a billion times": lambda: laughing(9),
    "a nest of hundreds": lambda: nested(300),
    "bytes": lambda: b"x",
    "a tensor": lambda: torch.zeros(1),
    "a set": lambda: {1},
    "a number of a thousand digits": lambda: 10**1000,
    "a field without a name": lambda: {5: 1},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_configuration_holds_plain_values_of_a_bounded_number(shape, stored, refused):
    stored["config"]["name"] = SHAPES[shape]()
    refused(stored)


def test_a_list_that_holds_itself_is_refused(stored, refused):
    loop = []
    loop.append(loop)
    stored["config"]["name"] = loop
    assert "too large or too deeply nested" in refused(stored)


@pytest.mark.parametrize(
    ("group", "value"),
    [
        *[("schedule", value) for value in (None, 5, [], {}, "${data}")],
        *[("data", value) for value in (None, 5, {})],
        ("seed", "abc"),
        ("compile", [1]),
        ("sampler", {"_target_": "ddpm.diffusion.samplers.ancestral.Ancestral", "no_such_argument": 1}),
        ("model", {"_target_": "ddpm.networks.unet.UNet", "_partial_": True}),
    ],
    ids=str,
)
def test_wrong_types_in_a_configuration_are_one_error(group, value, stored, tmp_path):
    stored["config"][group] = value
    torch.save(stored, tmp_path / "wrong.ckpt")
    with pytest.raises((ValueError, OmegaConfBaseException)):
        load.from_checkpoint(tmp_path / "wrong.ckpt", NOTHING)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.base_channels", 2**20, "has weights that do not match its configuration"),
        ("model.base_channels", 2**60, "evil.ckpt"),
        ("model.num_res_blocks", 10**12, "a network of num_res_blocks = 1000000000000 takes"),
        ("schedule.num_timesteps", 10**12, "a schedule of num_timesteps = 1000000000000 takes"),
    ],
)
def test_memory_is_not_taken_for_what_a_configuration_claims(field, value, message, stored, tmp_path):
    config = OmegaConf.create(stored["config"])
    OmegaConf.update(config, field, value)
    torch.save({**stored, "config": OmegaConf.to_container(config, resolve=False)}, tmp_path / "evil.ckpt")
    with pytest.raises(ValueError, match=message):
        load.from_checkpoint(tmp_path / "evil.ckpt", NOTHING)


@pytest.mark.parametrize(
    "value",
    [torch.zeros(1).expand(10**6, 10**6), torch.zeros(1, device="meta"), torch.zeros(1).to_sparse(), "x", None],
    ids=["a number spread by strides", "no memory", "sparse", "text", "nothing"],
)
def test_weights_that_are_no_weights_are_refused(value, stored, refused):
    stored["state_dict"]["network.out.bias"] = value
    refused(stored)


MODULES = sorted((ROOT / "src" / "ddpm").rglob("*.py"))
OF_MODELS = [path for path in MODULES if dotted(path).startswith(tuple(part.rstrip(".") for part in PARTS))]


def test_a_module_that_a_file_can_import_only_defines():
    """`_target_: ddpm.networks...` imports what it names before anything else is known of it."""
    plain = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.ClassDef | ast.Assign | ast.AnnAssign
    assert len(OF_MODELS) > 100
    for path in OF_MODELS:
        for node in ast.parse(path.read_text()).body:
            is_text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            assert isinstance(node, plain) or is_text, f"{dotted(path)}: {ast.unparse(node)}"


def test_every_target_of_a_model_may_be_stored():
    groups = (*groups_table.group_names(builds=True), "data")
    text = "\n".join(path.read_text() for group in groups for path in (ROOT / "conf" / group).glob("*.yaml"))
    named = set(re.findall(r"^\s*_target_: (\S+)$", text, re.MULTILINE))
    assert len(named) > 30
    assert [target for target in named if not is_ours(target)] == []


# 3. Hooks of Lightning


def test_lightnings_hooks_in_hyper_parameters_are_never_called(stored, mark, tmp_path):
    evil = {"_instantiator": "torch.utils.collect_env.run", "command": f"touch {mark}", "_class_path": "os.system"}
    for key in ("hyper_parameters", "datamodule_hyper_parameters"):
        stored[key] = evil
    stored |= {"hparams_name": "kwargs", "hparams_type": "os.system"}
    torch.save(stored, tmp_path / "hooks.ckpt")
    load.from_checkpoint(tmp_path / "hooks.ckpt", NOTHING)
    assert not mark.exists()


# 4. and 7. safetensors and folders of diffusers


def safetensors_file(header, size=None, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


BAD_SAFETENSORS = {
    "an oversized header": safetensors_file({}, size=2**62),
    "a shape beyond the data": safetensors_file(
        {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 4]}}, data=bytes(4)
    ),
    "a nest": safetensors_file(b'{"a":' + b"[" * 10**5),
    "a pickle": pickle.dumps({"a": 1}),
}


@pytest.fixture
def folder(tmp_path):
    diffusers.save_network(UNet(3, 8, [1, 2], 1, num_groups=4), tmp_path / "model")
    return tmp_path / "model"


def rewrite(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"sample_size": 8} | changes))


@pytest.mark.parametrize("kind", BAD_SAFETENSORS)
def test_hostile_safetensors_are_one_error(kind, folder, tmp_path):
    (folder / "diffusion_pytorch_model.safetensors").write_bytes(BAD_SAFETENSORS[kind])
    rewrite(folder)
    with pytest.raises(ValueError, match="is damaged, or not a safetensors file"):
        load.from_checkpoint(folder, NOTHING)
    (tmp_path / "inception.safetensors").write_bytes(BAD_SAFETENSORS[kind])
    with pytest.raises(ValueError, match="more than tensors, or is damaged"):
        Inception(tmp_path / "inception.safetensors").to("cpu")


@pytest.mark.parametrize(
    "changes",
    [
        {"block_out_channels": [2**20, 2**21]},
        {"block_out_channels": [0, 0]},
        {"block_out_channels": []},
        {"block_out_channels": ["8", "16"]},
        {"down_block_types": [{}, {}]},
        {"in_channels": "3"},
        {"in_channels": 2**40},
        {"layers_per_block": 10**12},
        {"norm_num_groups": 0},
        {"sample_size": "${oc.env:HOME}"},
        {"sample_size": {"_target_": "os.system"}},
        {"_class_name": "UNet2DConditionModel"},
    ],
    ids=str,
)
def test_hostile_values_in_a_config_of_diffusers_are_one_error(changes, folder):
    rewrite(folder, **changes)
    with pytest.raises(ValueError):
        load.from_checkpoint(folder, NOTHING)


@pytest.mark.parametrize(
    "scheduler",
    [
        {"num_train_timesteps": 10**12},
        {"beta_schedule": ["linear"]},
        {"beta_schedule": "${oc.env:HOME}"},
        {"beta_start": {"_target_": "os.system"}},
        [],
    ],
    ids=str,
)
def test_hostile_values_in_a_scheduler_are_one_error(scheduler, folder):
    rewrite(folder)
    (folder / "scheduler_config.json").write_text(json.dumps(scheduler))
    with pytest.raises(ValueError):
        load.from_checkpoint(folder, NOTHING)


@pytest.mark.parametrize("text", ["[" * 10**6, "[]", '"x"', "{", "", "\x00"], ids=range(6))
def test_a_config_that_is_no_json_object_names_its_file(text, folder):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json must be"):
        diffusers.load_diffusers(folder)


@pytest.mark.parametrize("save", [as_pickle, torch.save, in_the_older_format], ids=["pickle", "torch", "older"])
def test_hostile_pickles_and_pieces_of_weights_are_never_opened(save, folder, mark):
    weights = folder / "diffusion_pytorch_model.safetensors"
    weights.unlink()
    save({"a": CALLS["a command"](mark)}, weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"cannot be read as data: .*no code in it was run"):
        diffusers.load_diffusers(folder)
    torch.save({"conv_in.weight": "text"}, weights.with_suffix(".bin"))
    with pytest.raises(ValueError, match=r"must hold a state dict of weights, and 'conv_in.weight' is none"):
        diffusers.load_diffusers(folder)
    weights.with_suffix(".bin").unlink()
    pieces = {"weight_map": {"conv_in.weight": "../../../etc/passwd"}}
    (folder / f"{weights.name}.index.json").write_text(json.dumps(pieces))
    with pytest.raises(ValueError, match="names of files in this folder"):
        diffusers.load_diffusers(folder)


# 8. What the commands read back


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "{}",
        "[" * 10**6,
        '{"project": "p", "name": "n", "run_id": 5}',
        '{"project": "../p", "name": "n", "run_id": "r"}',
        '{"project": "p", "name": "n", "run_id": "../r"}',
        '{"project": "p", "name": "n", "run_id": "r", "save_dir": "/"}',
        '{"project": {"_target_": "os.system"}, "name": "n", "run_id": "r"}',
    ],
    ids=lambda text: text[:60],
)
def test_a_hostile_identity_of_a_wandb_run_starts_none(text, tmp_path, monkeypatch):
    monkeypatch.setattr("wandb.init", lambda **_: pytest.fail("a run was started"))
    (tmp_path / "wandb_run.json").write_text(text)
    with pytest.raises(ValueError, match=r"wandb_run\.json"):
        reopen_run(tmp_path)


@pytest.mark.parametrize(
    "text", ["[" * 10**6, "[]", '{"metrics": 1, "protocol": {}}', '{"metrics": {}, "protocol": {"_target_": "x"}}'],
    ids=range(4),
)  # fmt: skip
def test_a_hostile_result_is_one_error(text, tmp_path):
    (tmp_path / "result.json").write_text(text)
    with pytest.raises(ValueError, match=r"result\.json"):
        read_result(tmp_path / "result.json")


# What holds for every file of the source


def test_a_checkpoint_of_a_training_asks_for_nothing_but_plain_values(small, tmp_path):
    from ddpm.commands import train

    config = small()
    train.run_train(config)
    path = Path(config.run_dir) / "checkpoints" / "last.ckpt"
    assert torch.serialization.get_unsafe_globals_in_checkpoint(path) == []
    assert read_checkpoint(path)["global_step"] == 4
    load.from_checkpoint(path, NOTHING)


def calls(tree):
    """(dotted name, keywords) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {k.arg: k.value for k in node.keywords}


@pytest.mark.parametrize("path", MODULES, ids=dotted)
def test_no_source_file_can_run_what_it_reads(path):
    tree = ast.parse(path.read_text())
    imported = {
        name.partition(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import)
            else [node.module] if isinstance(node, ast.ImportFrom)
            else []
        )
    }  # fmt: skip
    assert imported.isdisjoint({"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"})
    for name, keywords in calls(tree):
        last = name.rpartition(".")[2]
        assert name not in ("eval", "exec", "compile", "__import__", "os.system", "os.popen"), name
        assert name not in ("yaml.load", "yaml.load_all"), f"{name} in the place of yaml.safe_load"
        assert last not in ("load_from_checkpoint", "unsafe_load", "full_load", "torch_load"), name
        if name in ("torch.load", "np.load", "numpy.load"):
            option, safe = ("weights_only", True) if name == "torch.load" else ("allow_pickle", False)
            assert option in keywords or option == "allow_pickle", f"{name} without {option}"
            given = keywords.get(option)
            assert given is None or (isinstance(given, ast.Constant) and given.value is safe), name
        if name == "Image.open" and "data" in path.parts:
            assert "formats" in keywords, "Pillow starts Ghostscript for EPS"
