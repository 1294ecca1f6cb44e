"""Checkpoints of the Hugging Face hub: a cache in the hub's own layout, no network, and an upload that is not one."""

import json
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import huggingface_hub
import pytest
import torch
from huggingface_hub import errors
from networks import awake
from omegaconf import OmegaConf
from safetensors.torch import load_file
from small_runs import ROOT, command_environment, composed, configured

import ddpm
from ddpm.base.nested import flatten
from ddpm.checkpoint import groups
from ddpm.commands import evaluate, export, sample, train
from ddpm.commands.model_card import escape
from ddpm.config import build, load
from ddpm.config.checkpoint_path import NAMED_IN_COMMANDS, checkpoint_path, fetch, fetch_checkpoints
from ddpm.interop import diffusers, hub
from ddpm.metrics.protocol import read_result
from ddpm.networks import UNet
from ddpm.runs.portable import to_portable

COMMIT = "0123456789abcdef0123456789abcdef01234567"
WEIGHTS = "diffusion_pytorch_model.safetensors"
SMALL_FIRST_STAGE = (
    *("experiment=first_stage_mnist", "data=digits", "data.batch_size=16", "adversary=none", "perceptual=none"),
    *("model.base_channels=8", "model.num_groups=4", "logger=none", "trainer=cpu", "trainer.max_steps=2"),
    "~callbacks.reconstructions",
)
LATENT = ("codec=latent", "clip=none", "codec.scale=1", "codec.shift=false")
REAL = ("data=digits", "num_samples=8", "num_real=8", "features=mnist", "metric=fid", "+sampler.steps=2")
pytestmark = pytest.mark.filterwarnings("ignore:FID of 8")


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """`cache("OWNER/NAME", folder)`: put a folder into an empty cache of the hub, which cannot be reached."""
    root = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(root))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def put(repo, folder, commit=COMMIT, ref="main"):
        place = root / f"models--{repo.replace('/', '--')}"
        snapshot = place / "snapshots" / commit
        (place / "blobs").mkdir(parents=True)
        for number, file in enumerate(path for path in sorted(folder.rglob("*")) if path.is_file()):
            link = snapshot / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, place / "blobs" / str(number))
            link.symlink_to(place / "blobs" / str(number))
        (place / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (place / "refs" / ref).write_text(commit)
        return snapshot

    return put


@pytest.fixture
def folder(tmp_path):
    """The folder of a small model of diffusers."""
    network = awake(UNet(1, 8, [1, 2], 1, num_groups=4)).float()
    diffusers.save_network(network, tmp_path / "model", sample_size=8)
    return tmp_path / "model"


def run(command, name, tmp_path, *words):
    command(configured(name, tmp_path / "out", *words))


# Names and the cache


def test_a_name_is_its_folder_in_the_cache_with_and_without_a_revision(cache, folder):
    snapshot = cache("some/model", folder)
    for name in ("hf:some/model", "hf:some/model@main", f"hf:some/model@{COMMIT}"):
        assert checkpoint_path(name) == snapshot
        assert fetch(name) == f"hf:some/model@{COMMIT}"
    assert fetch("runs/mine") == "runs/mine"


def test_a_model_of_the_cache_gives_the_samples_of_its_folder(cache, folder):
    cache("some/model", folder)
    words = ("sampler.steps=3", "trainer.accelerator=cpu")
    one, other = (ddpm.load(name, *words) for name in (folder, "hf:some/model"))
    images = one.sample(2)
    assert torch.equal(other.sample(2), images)
    assert images.std() > 0.1


def test_weights_in_a_pickle_are_read_as_data(cache, folder):
    weights = load_file(folder / WEIGHTS)
    expected = load.guide(folder).network.state_dict()
    (folder / WEIGHTS).unlink()
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    found = load.guide(checkpoint_path(hub.describe_path(cache("some/model", folder)))).network.state_dict()
    assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    "name", ["hf:model", "hf:a/b/c", "hf:../etc", "hf:a/b@", "hf:a/b@../../x", "hf:a--b/c", "hf:a/b c", "hf:"]
)
def test_what_is_no_name_is_refused(name, cache):
    for take in (fetch, checkpoint_path):
        with pytest.raises(ValueError, match=r"^ckpt must be hf:OWNER/NAME or hf:OWNER/NAME@REVISION, got"):
            take(name)


def test_without_network_and_cache_the_error_names_the_remedy(cache, tmp_path, folder):
    with pytest.raises(ValueError, match=r"^ckpt=hf:a/b@v1 is not in .*hf download a/b --revision v1.*HF_HOME") as said:
        fetch("hf:a/b@v1")
    assert str(tmp_path / "hub") in str(said.value)
    assert "\n" not in str(said.value)
    (folder / WEIGHTS).unlink()
    cache("some/model", folder)  # settings alone, as other programs leave them
    with pytest.raises(ValueError, match=r"codec.first_stage=hf:some/model@\w+ has no weights"):
        fetch("hf:some/model", "codec.first_stage")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (errors.GatedRepoError, "asks for consent: .*HF_TOKEN"),
        (errors.RepositoryNotFoundError, "does not exist on the hub, or is private: .*HF_TOKEN"),
        (errors.RevisionNotFoundError, "does not exist: its repository has no such branch"),
        (ConnectionError, r"is not in .* and cannot be downloaded \(ConnectionError\)"),
    ],
)
def test_each_refusal_of_the_hub_is_one_line(error, said, cache, monkeypatch):
    def refuse(repo, local_files_only=False, **options):
        if local_files_only:
            raise errors.LocalEntryNotFoundError("nothing")
        raise error.__new__(error)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(ValueError, match=rf"^guidance.guide=hf:a/b@main {said}"):
        fetch("hf:a/b", "guidance.guide")


def test_a_download_takes_settings_and_safetensors_and_pickles_only_without_them(cache, folder, monkeypatch):
    asked = []
    there = huggingface_hub.snapshot_download

    def download(repo, revision, allow_patterns, ignore_patterns, local_files_only=False):
        if not local_files_only:
            asked.append((revision, allow_patterns))
            if not (Path(huggingface_hub.constants.HF_HUB_CACHE) / "models--a--b").exists():
                cache("a/b", folder)
        options = {"allow_patterns": allow_patterns, "local_files_only": True}
        return there(repo, revision=revision, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    weights, name = load_file(folder / WEIGHTS), folder / WEIGHTS
    name.unlink()
    settings = ("main", ["config.json", "model_index.json"])
    with pytest.raises(ValueError, match="no weights"):
        fetch("hf:a/b")
    assert asked == [settings, *((COMMIT, [*hub.SETTINGS, *each]) for each in hub.WEIGHTS)]
    torch.save(weights, folder / "diffusion_pytorch_model.bin")
    shutil.rmtree(huggingface_hub.constants.HF_HUB_CACHE)
    asked.clear()
    assert fetch("hf:a/b") == f"hf:a/b@{COMMIT}"
    assert asked == [settings]  # the whole folder came with them here
    assert fetch("hf:a/b") == f"hf:a/b@{COMMIT}"
    assert asked == [settings], "what the cache has is not asked for again"


def test_one_process_of_a_machine_downloads_and_the_others_wait(cache, folder, monkeypatch):
    asked = []
    there = huggingface_hub.snapshot_download

    def download(repo, local_files_only=False, **options):
        if not local_files_only:
            asked.append(repo)
            time.sleep(0.3)
            cache("a/b", folder)
        return there(repo, local_files_only=True, **options)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: hub.download(hub.HubName("a/b", COMMIT), "ckpt"), range(3)))
    assert asked == ["a/b"]


def test_a_missing_library_is_one_error(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match=r"^ckpt needs huggingface_hub.*pip install ddpm\[hub\]"):
        fetch("hf:a/b")


# What records say, and where files go


def test_a_result_records_the_name_with_its_commit_and_the_cache_stays_as_it_was(cache, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    snapshot = cache("some/model", folder)
    before = sorted(snapshot.rglob("*"))
    words = ("ckpt=hf:some/model", "trainer=cpu", "+sampler.steps=2")
    run(sample.run_sample, "sample", tmp_path, *words, "num_samples=2", "format=png")
    run(evaluate.run_evaluate, "evaluate", tmp_path, *words[:2], *REAL)
    home = tmp_path / "runs" / "hub" / "some" / f"model@{COMMIT[:12]}"
    assert (home / "samples_model_raw_png" / "grid.png").exists()
    (file,) = (home / "evaluations").glob("*.json")
    subject = read_result(file).subject
    assert (subject["ckpt"], subject["run"]) == (f"hf:some/model@{COMMIT}", home.name)
    assert sorted(snapshot.rglob("*")) == before


@pytest.fixture(scope="session")
def first_stage(tmp_path_factory):
    """The exported folder of a small first stage."""
    run_dir = tmp_path_factory.mktemp("first_stage")
    train.run_train(configured("train", run_dir / "run", *SMALL_FIRST_STAGE))
    words = (f"ckpt={run_dir / 'run'}", "format=safetensors", f"out={run_dir / 'out'}")
    export.run_export(composed("export", *words))
    return run_dir / "out"


def test_a_training_stores_the_name_of_its_first_stage_with_the_commit(cache, first_stage, small):
    cache("some/stage", first_stage)
    config = small(*LATENT, "codec.first_stage=hf:some/stage")
    config = train.with_latent_shape(fetch_checkpoints(config), load.guide)
    model = build.module(config).model
    assert model.config["codec"]["first_stage"] == f"hf:some/stage@{COMMIT}"


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("guidance.guide", ("guidance=autoguidance",)),
        ("guidance.classifier", ("guidance=classifier",)),
        ("task.base", ("task=cascade",)),
    ],
)
def test_every_checkpoint_of_a_command_gets_its_commit(field, words, cache, folder, config):
    cache("some/model", folder)
    fetched = fetch_checkpoints(config("sample", "ckpt=hf:some/model", *words, f"{field}=hf:some/model@main"))
    assert field in NAMED_IN_COMMANDS
    assert OmegaConf.select(fetched, field) == fetched.ckpt == f"hf:some/model@{COMMIT}"


# Stored configurations


def test_no_field_of_a_stored_configuration_causes_a_download(small, cache, tmp_path, monkeypatch, first_stage):
    """Each text and each empty field of each group is a name of the hub once; so are those that a codec of latents, a
    guidance and a text encoder add. The fields that look into the cache are those that a command or the cache fills."""
    asked = []

    def nothing_cached(*arguments, local_files_only=False, **options):
        asked.append(arguments)
        assert local_files_only, "a download"
        raise errors.LocalEntryNotFoundError("nothing")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", nothing_cached)
    monkeypatch.setattr("socket.socket.connect", lambda *arguments: pytest.fail("a connection"))
    plain = build.module(small("cond=class")).model
    latent = build.module(train.with_latent_shape(small(*LATENT, f"codec.first_stage={first_stage}"), load.guide)).model
    guided = [to_portable(small(f"guidance={name}"))["guidance"] for name in ("autoguidance", "classifier")]
    stored = [(plain, {}, ""), (latent, {}, "codec."), *((plain, {"guidance": each}, "guidance.") for each in guided)]
    texts = to_portable(small("cond=caption", "text=clip", "model=text_unet_tiny"))
    stored += [(plain, {name: texts[name] for name in ("text", "cond", "model")}, "text.")]
    named, looked_for = set(), set()
    for model, changes, start in stored:
        config = {**model.config, **changes}
        for field, value in flatten(config).items():
            if field.startswith(start) and (value is None or isinstance(value, str)):
                changed = OmegaConf.create(config)
                OmegaConf.update(changed, field, "hf:evil/model", force_add=True)
                content = {"config": OmegaConf.to_container(changed), "state_dict": model.state_dict()}
                torch.save(content, tmp_path / "stored.ckpt")
                asked.clear()
                try:
                    load.guide(tmp_path / "stored.ckpt")
                except ValueError as refusal:
                    named |= {field} if "downloads nothing: give" in str(refusal) else set()
                looked_for |= {field} if any("evil/model" in each[0] for each in asked) else set()
    assert named == set(NAMED_IN_COMMANDS) - {"ckpt", "task.base"}
    places = {f"{group.name}.{field}" for group in groups.GROUPS for field in group.places}
    assert places <= looked_for | {"text.tokenizer"}
    assert looked_for <= places | named


def test_a_stored_name_is_taken_from_the_cache_and_a_command_may_replace_it(cache, first_stage, small, tmp_path):
    snapshot = cache("some/stage", first_stage)
    config = fetch_checkpoints(small(*LATENT, "codec.first_stage=hf:some/stage"))
    model = build.module(train.with_latent_shape(config, load.guide)).model
    path = tmp_path / "model.ckpt"
    torch.save({"config": model.config, "state_dict": model.state_dict()}, path)
    assert load.guide(path).config["codec"]["first_stage"] == f"hf:some/stage@{COMMIT}"
    shutil.move(snapshot, tmp_path / "moved")
    with pytest.raises(ValueError, match=r"codec.first_stage=hf:some/stage@\w+ is not in .* downloads nothing: give"):
        load.guide(path)
    kept = shutil.copytree(tmp_path / "moved", tmp_path / "kept")
    changes = OmegaConf.create({"codec": {"first_stage": str(kept)}})
    assert load.from_checkpoint(path, changes)[0].codec is not None


# The model card and the upload


@pytest.fixture
def uploads(monkeypatch):
    """What was sent to the hub."""
    sent = []
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "token")
    monkeypatch.setattr(huggingface_hub, "create_repo", lambda repo, **options: sent.append((repo, options)))

    def upload(repo_id, folder_path, **options):
        sent.append((repo_id, sorted(path.name for path in Path(folder_path).iterdir())))

    monkeypatch.setattr(huggingface_hub, "upload_folder", upload)
    return sent


@pytest.fixture
def pushed(tmp_path):
    def push(run_dir, *words):
        out = tmp_path / "pushed"
        shutil.rmtree(out, ignore_errors=True)
        words = (f"ckpt={run_dir}", "format=safetensors", f"out={out}", "push=me/my-model", *words)
        export.run_export(composed("export", *words))
        return out

    return push


def test_an_upload_has_the_model_its_card_and_its_samples_and_is_private(copied, pushed, uploads, tmp_path):
    run_dir = copied("cond=class")
    run(evaluate.run_evaluate, "evaluate", tmp_path, f"ckpt={run_dir}", "trainer=cpu", *REAL)
    out = pushed(run_dir)
    files = ["README.md", "config.json", "model.safetensors", "samples.png"]
    assert uploads == [("me/my-model", {"private": True, "exist_ok": True}), ("me/my-model", files)]
    card = (out / "README.md").read_text()
    (file,) = (run_dir / "evaluations").glob("*.json")
    value = next(iter(read_result(file).metrics.values()))
    assert card.startswith("---\nlibrary_name: ddpm\n")
    for words in ("# my-model", "ckpt=hf:me/my-model", "UNet", "GaussianDiffusion", "digits", "num\\_generated: 8"):
        assert words.replace(": 8", "\\: 8") in card, words
    assert re.search(r"\| digits \| 4 \| 64 \(batches of 16\) \| 0 \|", card)
    assert f"{value:.0f}"[:2] in card.partition("## Metrics")[2]
    assert "license:" not in card.split("---")[1]
    assert "No license is stated" in card
    grid = run_dir / "samples" / "ema" / "00000004.png"
    assert (out / "samples.png").read_bytes() == grid.read_bytes()


def test_results_of_other_weights_are_not_in_the_card(copied, pushed, uploads, tmp_path):
    run_dir = copied("cond=class")
    run(evaluate.run_evaluate, "evaluate", tmp_path, f"ckpt={run_dir}", "trainer=cpu", *REAL, "weights=raw")
    assert "## Metrics" not in (pushed(run_dir) / "README.md").read_text()
    assert "## Metrics" in (pushed(run_dir, "weights=raw") / "README.md").read_text()


def test_results_of_a_training_are_known_by_their_step(copied, pushed, uploads, tmp_path):
    run_dir = copied("cond=class")
    run(evaluate.run_evaluate, "evaluate", tmp_path, f"ckpt={run_dir}", "trainer=cpu", *REAL)
    (file,) = (run_dir / "evaluations").glob("*.json")
    result = json.loads(file.read_text())
    del result["subject"]["weights_sha256"], result["subject"]["ckpt"]
    for changes, is_shown in [({}, True), ({"step": 3}, False), ({"weights": "raw"}, False)]:
        file.write_text(json.dumps({**result, "subject": {**result["subject"], **changes}}))
        assert ("## Metrics" in (pushed(run_dir) / "README.md").read_text()) == is_shown


def test_a_first_stage_says_how_it_is_used(first_stage, pushed, uploads):
    card = (pushed(first_stage) / "README.md").read_text()
    assert "`codec.first_stage=hf:me/my-model`" in card
    assert "Not known: the model was exported from weights alone." in card


def test_nothing_of_this_machine_is_uploaded(copied, pushed, uploads, tmp_path):
    run_dir = copied("cond=class")
    (path,) = (path for path in (run_dir / "checkpoints").glob("0*.ckpt"))
    stored = torch.load(path, weights_only=True)
    secret = str(tmp_path / "secret")
    stored["config"]["data"]["source"] = {**stored["config"]["data"]["source"], "root": secret}
    stored["config"]["data"]["name"] = secret
    torch.save(stored, run_dir / "checkpoints" / "other.ckpt")
    out = pushed(run_dir / "checkpoints" / "other.ckpt")
    for name in ("README.md", "config.json"):
        assert str(tmp_path) not in (out / name).read_text()
    assert "source" not in load.guide(out).config["data"]
    with pytest.raises(ValueError, match="does not say what it was trained on: choose the data"):
        run(evaluate.run_evaluate, "evaluate", tmp_path, f"ckpt={out}", "trainer=cpu", "features=mnist", "metric=fid")


def test_texts_of_data_neither_format_nor_link():
    assert escape("a|b") == "a\\|b"
    hostile = "# x\n[click](http://evil) <script> `rm` **b** _i_ ![p](q) www.evil.com a@b.c {{}} $x$ ~~s~~ \u202e"
    shown = escape(hostile)
    assert "\n" not in shown
    assert "\u202e" not in shown
    assert not re.search(r"(?<!\\)[\[\]<>`*_#!|~$@:.]", shown)
    assert escape("Zürich ± 0") == "Zürich ± 0"
    assert "home" not in escape("file:///home/my home/x and /home/me, C:\\home\\me, ~/home") + escape("a=/home/me")
    assert escape("bits/dim, 1 / 255") == "bits\\/dim, 1 \\/ 255"


def test_the_names_of_classes_stand_in_the_card_as_text(copied, pushed, uploads):
    run_dir = copied("cond=class")
    (path,) = (path for path in (run_dir / "checkpoints").glob("0*.ckpt"))
    stored = torch.load(path, weights_only=True)
    stored["config"]["fitted"]["cond"]["names"] = ["<script>alert(1)</script>", "${oc.env:HOME}", *map(str, range(8))]
    torch.save(stored, run_dir / "checkpoints" / "other.ckpt")
    card = (pushed(run_dir / "checkpoints" / "other.ckpt") / "README.md").read_text()
    assert r"\<script\>alert(1)\<\/script\>, \$\{oc\.env\:HOME\}, 0, 1" in card


@pytest.mark.parametrize("problem", ["no token", "no network", "refused"])
def test_what_cannot_be_sent_stays_with_the_command(problem, copied, pushed, uploads, monkeypatch, tmp_path, capsys):
    def fail(*arguments, **options):
        raise errors.HfHubHTTPError.__new__(errors.HfHubHTTPError) if problem == "refused" else ConnectionError("no")

    monkeypatch.setattr(huggingface_hub, "create_repo", fail)
    if problem == "no token":
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    command = f"hf upload me/my-model {tmp_path / 'pushed'} . --private"
    if problem == "refused":
        with pytest.raises(ValueError, match=r"^push=me/my-model was refused by the hub") as refusal:
            pushed(copied("cond=class"))
        assert command in str(refusal.value)
    else:
        pushed(copied("cond=class"))
        assert f"Upload it later: {command}" in capsys.readouterr().out
    assert (tmp_path / "pushed" / "README.md").exists()
    assert not uploads


@pytest.mark.parametrize("name", ["model", "a/b/c", "../x", "hf:a/b", "a/b@main", "a--b/c"])
def test_a_wrong_name_to_push_to_is_refused_before_any_work(name, tmp_path):
    with pytest.raises(ValueError, match=r"^push must be OWNER/NAME, got"):
        export.run_export(composed("export", "ckpt=nowhere", "format=safetensors", f"push='{name}'"))


@pytest.mark.parametrize(
    ("trained", "opened"),
    [
        ((), 'DDPMPipeline.from_pretrained("me/my-model")'),
        (("cond=class",), 'DiffusionPipeline.from_pretrained("me/my-model", trust_remote_code=True)'),
    ],
)
def test_a_pipeline_of_diffusers_has_a_card_too(copied, pushed, uploads, trained, opened):
    out = pushed(copied(*trained), "format=diffusers", "clip=static", "variance=small")
    card = (out / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: diffusers\n")
    assert f"Use it as `{opened}`" in card


def test_a_command_without_network_ends_with_one_line_and_code_two(tmp_path):
    environment = {**command_environment(), "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    words = (sys.executable, str(ROOT / "sample.py"), "ckpt=hf:some/model@v1.0", "trainer=cpu")
    ended = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    first, *rest = ended.stderr.strip().splitlines()
    assert first.startswith("error: ckpt=hf:some/model@v1.0 is not in the hub's cache")
    assert rest == ["(HYDRA_FULL_ERROR=1 shows the traceback)"]
