"""Whatever changes a sample changes what a folder of images and the name of a result say of it, in all groups."""

import torch
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from small_runs import ROOT

from ddpm.checkpoint import groups
from ddpm.checkpoint.reading import read_checkpoint
from ddpm.commands import train
from ddpm.commands.sample import named_files
from ddpm.config import analytic, build, load
from ddpm.generation.identity import describe_groups, identity
from ddpm.metrics.protocol import short_digest

ONLY_IN_TRAINING = {"time_sampler", "weight", "error", "loss", "optimizer"}


def option(group, name):
    leaf = OmegaConf.to_container(OmegaConf.load(ROOT / "conf" / group / f"{name}.yaml"))
    return {group: leaf | {k: value for k, value in (("num_timesteps", 6), ("steps", None)) if k in leaf}}


def variants(stored):
    """Every option of every group, with each of its numbers and switches changed, and with those of the stored leaf."""
    for group in groups.group_names(builds=True):
        paths = [path for path in sorted((ROOT / "conf" / group).glob("*.yaml")) if "defaults:" not in path.read_text()]
        yield from ({group: changed} for changed in others(stored[group]))
        for leaf in (option(group, path.stem)[group] for path in paths if group != "model"):
            yield {group: leaf}
            yield from ({group: {**leaf, **changed}} for changed in others(leaf) if group not in ONLY_IN_TRAINING)


def others(leaf):
    numbers = {key: value for key, value in leaf.items() if isinstance(value, int | float) and key[0] != "_"}
    return [{k: not v if isinstance(v, bool) else type(v)(v * 1.5 + 1)} for k, v in numbers.items()]


def test_samples_that_differ_have_another_identity_and_another_result(small, config, tmp_path, monkeypatch):
    """Of a network of random weights, so that every setting shows. Settings that do not fit it are passed over."""
    train.run_train(small("schedule.num_timesteps=6", "variance=learned_range", "loss=hybrid", "cond=class"))
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    read, generator = read_checkpoint(path), torch.Generator().manual_seed(0)
    for weight in filter(torch.is_tensor, read["state_dict"].values()):
        weight += (0.1 * torch.randn(weight.shape, generator=generator)).to(weight.dtype)
    monkeypatch.setattr(load, "read_checkpoint", lambda path: read)
    monkeypatch.setattr(load, "refuse_other_weights", lambda *_: None)  # costs a third, and load_state_dict tells too
    words = ("sample", "ckpt=x", "trainer=cpu")
    trainers = [build.trainer(config(*words, f"trainer.precision={each}")) for each in ("32-true", "bf16-mixed")]
    seen, shown, changing = {}, set(), set()

    def note(changes, precision=0, weights="best", seed=0):
        trainer, ids = trainers[precision], torch.arange(2)
        try:
            module, stored = load.from_checkpoint(path, OmegaConf.create(changes))
            module.use_for_prediction(weights, seed)
            analytic.prepare(module, stored, path, trainer)
            with torch.no_grad(), trainer.precision_plugin.forward_context():
                made = module.generate(ids, module.predict_weights, module.sample_condition.of({"label": ids})).float()
        except (ValueError, OmegaConfBaseException):
            return None
        about = identity(stored, module, trainer)
        assert torch.allclose(seen.setdefault(short_digest(about), made), made, rtol=0, atol=1e-5, equal_nan=True), (
            changes
        )
        shown.add(short_digest(describe_groups(about)))
        assert len(shown) == len(seen), f"results do not tell apart what folders do: {changes}"
        changing.update(changes if not torch.equal(made, next(iter(seen.values()))) else ())
        return about

    base = note({})
    for changes in variants(read["config"]):
        assert note(changes) in (None, base) or not changes.keys() <= ONLY_IN_TRAINING, changes
    assert note({**(ddim := option("sampler", "ddim")), **option("variance", "large")}) == note(ddim)  # which has none
    assert (
        len({short_digest(note({}, **each)) for each in ({}, {"precision": 1}, {"weights": "raw"}, {"seed": 1})}) == 4
    )
    assert changing >= set(groups.group_names(builds=True)) - ONLY_IN_TRAINING - {
        "process",
        "codec",
        "cond",
        "ema",
        "text",
    }


def test_other_weights_in_the_folder_that_a_task_names_are_another_identity(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"one")
    before = named_files({"base": str(folder), "split": "train", "num": 3})
    (folder / "model.safetensors").write_bytes(b"two")
    assert before.keys() == {"base"}
    assert named_files({"base": str(folder)}) != before


def test_a_folder_named_as_a_split_is_no_file_of_a_task(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "image.png").write_bytes(b"")
    (tmp_path / "mask[a].png").write_bytes(b"white")
    assert named_files({"split": "train", "mask": "mask[a].png"}).keys() == {"mask"}
