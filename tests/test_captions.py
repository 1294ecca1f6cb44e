"""Captions through the commands: trained, resumed, requested, measured; and images with texts of their own."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import transformers
from PIL import Image
from precision import assert_rounded
from small_models import QUICK, Quarters
from small_runs import configured
from tiny_text import clip_folder

import ddpm
from ddpm.base.strokes import slant, stroke_width
from ddpm.checkpoint import folder as files
from ddpm.commands import evaluate, sample, train
from ddpm.commands.check_data import describe_captions
from ddpm.commands.verify_resume import compare_runs
from ddpm.data.any_images import image_data, image_source
from ddpm.data.sources.described_digits import DIGITS, DescribedDigits
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.npz import Npz
from ddpm.data.sources.parquet import Parquet
from ddpm.generation.image_writer import ImageWriter
from ddpm.networks.text.words import Words

TEXT = ("cond=caption", "text=words", "model=text_unet_tiny", "text.token_channels=8", "text.depth=1")
SMALL = ("data=mnist_captions", "data.size=8", "data.resize=box", "data.num_train=64", "data.num_val=16")
WORDS = (*(word for word in QUICK if word != "data=digits"), *TEXT, *SMALL, "data.verify=false", "logger=csv")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("captions")
    train.run_train(configured("train", folder / "run", *WORDS, "trainer.max_steps=4", "checkpoint_every_n_steps=1"))
    return folder / "run" / "checkpoints" / "last.ckpt"


def test_captions_say_what_is_measured_in_the_image():
    digits = Digits()
    images = DescribedDigits(digits, [1.2, 1.5], [-0.2, 0.05, 0.25]).open()
    assert len(images) == len(digits.open())
    for number in (0, 7, 100, 1700):
        pixels = torch.from_numpy(np.asarray(images.image(number)).reshape(1, 1, 8, 8)) / 127.5 - 1
        width, lean = stroke_width(pixels).item(), slant(pixels).item()
        words = ["a", "thin" if width <= 1.2 else "bold" if width > 1.5 else ""]
        words += ["backward" if lean <= -0.2 else "upright" if lean <= 0.05 else "leaning" if lean > 0.25 else ""]
        digit = DIGITS[images.labels[number]]
        assert images.captions[number] == " ".join([*filter(None, words), digit])


def test_a_prompt_decides_the_sample_and_no_prompt_is_the_examples(checkpoint):
    model = ddpm.load(checkpoint)
    bold, thin = (model.sample(3, prompt=f"a {word} seven") for word in ("bold", "thin"))
    assert not torch.allclose(bold, thin, atol=1e-4)
    examples = model.condition.default_prompts
    assert len(examples) == 8
    assert_rounded(model.sample(8), model.sample(8, prompt=examples), 100)


def test_guidance_moves_away_from_the_negative_prompt(config, checkpoint, tmp_path):
    made = {}
    for name, words in {
        "none": (),
        "negative": ("negative_prompt=a thin four",),
        "empty": ("negative_prompt=",),
    }.items():
        settings = (f"ckpt={checkpoint}", "prompt=a bold three", "num_samples=2", "format=npz", "trainer=cpu")
        guided = ("guidance=classifier_free", "guidance.scale=3", "sampler=ddim", "sampler.steps=3")
        sample.run_sample(config("sample", *settings, *guided, *words, f"out={tmp_path / name}"))
        made[name] = np.load(tmp_path / name / "samples.npz")["arr_0"]
    assert np.array_equal(made["none"], made["empty"])
    assert not np.array_equal(made["none"], made["negative"])
    about = json.loads((tmp_path / "negative" / "generation.json").read_text())
    assert "a thin four" in json.dumps(about)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("prompt=a bald three",), "did you mean 'bold'"),
        (("negative_prompt=a five",), "negative_prompt has an effect with guidance only"),
        (("class=3",), "class=3 has no effect on a model without classes"),
    ],
)
def test_a_request_that_means_nothing_is_refused(config, checkpoint, words, message):
    with pytest.raises(ValueError, match=message):
        sample.run_sample(config("sample", f"ckpt={checkpoint}", "trainer=cpu", *words))


def test_a_negative_prompt_needs_captions(config, run_of):
    words = (f"ckpt={run_of()}", "trainer=cpu", "guidance=classifier_free", "negative_prompt=five")
    with pytest.raises(ValueError, match="negative_prompt has no effect on a model without captions"):
        sample.run_sample(config("sample", *words))


@pytest.mark.filterwarnings("ignore:FID of 32")
def test_samples_are_measured_with_the_captions_of_real_images(config, checkpoint, tmp_path):
    words = (f"ckpt={checkpoint}", "metric=fid", "features=mnist", "num_samples=32", "trainer=cpu")
    evaluate.run_evaluate(config("evaluate", *words, "keep_images=false", f"out={tmp_path}"))
    stored = json.loads(next(tmp_path.glob("*.json")).read_text())
    assert "conditions_from" in json.dumps(stored)


@pytest.mark.filterwarnings("ignore:FID of 32")
def test_samples_are_measured_while_training_as_evaluate_measures_them(config, tmp_path):
    """With the captions of the training images, and not with the few of the sample grids."""
    measured = ("metric=fid", "features=mnist", "evaluate.num_samples=32", "sample_every_n_steps=2", "sampler.steps=2")
    train.run_train(config("train", *WORDS, *measured, "trainer.max_steps=2"))
    during = json.loads(next((tmp_path / "run" / "evaluations").glob("*.json")).read_text())
    words = (f"ckpt={tmp_path / 'run'}", "metric=fid", "features=mnist", "num_samples=32", "trainer=cpu")
    evaluate.run_evaluate(config("evaluate", *words, "keep_images=false", f"out={tmp_path / 'after'}"))
    after = json.loads(next((tmp_path / "after").glob("*.json")).read_text())
    assert during["metrics"] == pytest.approx(after["metrics"], rel=1e-4)
    assert during["subject"]["conditions_from"] == after["subject"]["conditions_from"]


def test_a_resumed_run_is_the_same_to_the_bit(config, checkpoint, tmp_path):
    words = (*WORDS, "trainer.max_steps=4", "checkpoint_every_n_steps=1")
    train.run_train(config("train", *words))
    for path in files.list_checkpoints(tmp_path / "run" / "checkpoints"):
        if files.step_of(path) > 2:
            files.remove(path)
    train.run_train(config("train", *words, "resume.path=auto"))
    assert not any(compare_runs(checkpoint.parents[1], tmp_path / "run").values())


# Data with captions of their own


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "images"
    for name in ("b/2.png", "1.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / name)
    return root


def lines(path, *entries):
    path.write_text("\n".join(entry if isinstance(entry, str) else json.dumps(entry) for entry in entries))


def test_a_folder_has_the_texts_of_its_tables(folder):
    lines(folder / "metadata.jsonl", {"file_name": "1.png", "text": "ein Öl"}, "")
    lines(folder / "b" / "metadata.jsonl", {"file_name": "2.png", "caption": "two", "more": 3})
    assert Folder(str(folder), layout="flat").open().captions == ["ein Öl", "two"]


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([{"file_name": "1.png", "text": "x"}], "has no text for 1 of 2 images, the first is b/2.png"),
        ([{"file_name": n, "text": "x"} for n in ("1.png", "b/2.png", "c.png")], "no image below .*: c.png"),
        ([{"file_name": "1.png", "text": 3}], "line 1 must be"),
        (["{"], "line 1"),
    ],
)
def test_a_table_that_does_not_fit_is_a_reason_where_captions_are_needed(folder, config, entries, message):
    lines(folder / "metadata.jsonl", *entries)
    images = Folder(str(folder), layout="flat").open()
    assert images.captions is None
    assert re.search(message, describe_captions(images))
    words = [word for word in WORDS if not word.startswith(("data", "experiment"))]
    data = ("data=folder", f"data.source.root={folder}", "data.source.layout=flat", "data.size=4", "data.channels=1")
    with pytest.raises(ValueError, match=f"cond=caption needs captions, but data=folder has none: .*{message}"):
        train.run_train(config("train", *words, *data, "data.batch_size=1"))


def test_a_table_cannot_name_files_elsewhere(folder):
    lines(folder / "metadata.jsonl", {"file_name": "../../etc/passwd", "text": "x"})
    images = Folder(str(folder), layout="flat").open()
    assert images.captions is None
    assert "file_name must lie below the table" in images.caption_problem


@pytest.mark.parametrize("name", ["caption", "text", "described"])
def test_parquet_files_have_a_column_of_texts(folder, tmp_path, name):
    image = {"bytes": (folder / "1.png").read_bytes(), "path": None}
    pq.write_table(pa.table({"image": [image, image], name: ["${oc.env:HOME}", None]}), tmp_path / "a.parquet")
    images = Parquet(str(tmp_path / "a.parquet"), caption_column=name if name == "described" else None).open()
    assert images.captions == ["${oc.env:HOME}", ""]


def test_texts_of_data_are_never_interpolated(folder, tmp_path, config):
    """They are stored with the model as its vocabulary and examples."""
    image = {"bytes": (folder / "1.png").read_bytes(), "path": None}
    pq.write_table(pa.table({"image": [image] * 16, "text": ["${oc.env:HOME}"] * 16}), tmp_path / "a.parquet")
    data = ("data=parquet", f"data.source.path={tmp_path / 'a.parquet'}", "data.channels=1", "data.size=4")
    words = [word for word in (*WORDS, *data) if not word.startswith(("data.num", "data.resize", "data=mnist"))]
    train.run_train(config("train", *words, "data.num_workers=0", "data.size=4", "trainer.max_steps=1"))
    model = ddpm.load(tmp_path / "run")
    assert model.condition.examples == ["${oc.env:HOME}"]
    assert model.condition.vocabulary == ["$", ".", ":", "env", "home", "oc", "{", "}"]


def test_data_without_captions_is_refused_by_name(config):
    words = [word for word in WORDS if not word.startswith("data")]
    with pytest.raises(
        ValueError, match="cond=caption needs captions, but data=digits has none; use data=mnist_captions"
    ):
        train.run_train(config("train", *words, "data=digits"))


def test_a_text_encoder_without_captions_is_refused(config):
    with pytest.raises(ValueError, match="text has an effect with cond=caption only"):
        train.run_train(config("train", *QUICK, "text=words"))


# A frozen text encoder


def test_a_frozen_encoder_is_not_saved_and_may_move_but_not_change(config, tmp_path):
    clip = clip_folder(tmp_path / "clip")
    moved, other = (Path(shutil.copytree(clip, tmp_path / name)) for name in ("moved", "other"))
    weights = transformers.CLIPTextModel.from_pretrained(other)
    next(iter(weights.parameters())).data += 1
    weights.save_pretrained(other)
    words = [word for word in WORDS if not word.startswith(("text", "model=", "cond"))]
    words += ["cond=caption", "text=clip", f"text.path={clip}"]
    train.run_train(config("train", *words, "trainer.max_steps=2"))
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    assert not any("token_embedding" in key for key in torch.load(checkpoint)["state_dict"])
    clip.rename(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"text\.path"):
        ddpm.load(checkpoint).sample(1, prompt="a cat")
    model = ddpm.load(checkpoint, f"text.path={moved}")
    assert not torch.allclose(model.sample(1, prompt="a cat"), model.sample(1, prompt=""), atol=1e-4)
    with pytest.raises(ValueError, match=r"has the hash .* but the model was trained with that of"):
        ddpm.load(checkpoint, f"text.path={other}").sample(1, prompt="a cat")


PROMPTS = ["a bold three", "", "a thin leaning seven"]
CYCLED = [PROMPTS[k % 3] for k in range(7)]


@pytest.fixture
def generate(checkpoint, tmp_path):
    """`generate("a", "png", ...)`: the images of sample.py with out=a and the prompts."""

    def generated(name, format, num=7, prompts=PROMPTS):
        chosen = [f"ckpt={checkpoint}", "trainer=cpu", f"num_samples={num}", f"format={format}", "+sampler.steps=2"]
        overrides = configured("sample", tmp_path, *chosen, f"out={tmp_path / name}")
        overrides.prompt = prompts
        sample.run_sample(overrides)
        return tmp_path / name / {"npz": "samples.npz", "png": "images"}[format]

    return generated


def captions(path):
    return image_source(path).open().captions


@pytest.mark.parametrize("kind", ["npz", "png", "zip"])
def test_captions_of_samples_are_read_back_without_an_option(generate, kind):
    images = generate("a", {"zip": "png"}.get(kind, kind))
    path = shutil.make_archive(str(images), "zip", images) if kind == "zip" else images
    assert captions(path) == CYCLED
    assert image_data(path).split("train").captions == CYCLED


def test_the_table_is_that_of_hugging_face_and_the_array_needs_no_pickle(generate):
    rows = [json.loads(line) for line in (generate("a", "png") / "metadata.jsonl").read_text().splitlines()]
    assert rows == [{"file_name": f"{number:06d}.png", "text": text} for number, text in enumerate(CYCLED)]
    with np.load(generate("b", "npz"), allow_pickle=False) as arrays:
        assert arrays.files == ["arr_0", "captions"]
        assert arrays["captions"].tolist() == CYCLED


@pytest.mark.parametrize("format", ["npz", "png"])
def test_samples_without_a_caption_have_none(generate, format):
    images = generate("a", format, prompts=[""])
    assert getattr(image_source(images).open(), "captions", None) is None
    assert not list(images.parent.rglob("metadata.jsonl"))


@pytest.mark.parametrize("format", ["npz", "png"])
def test_finished_samples_of_an_earlier_version_get_captions_and_stay_the_same(generate, monkeypatch, format):
    images = generate("a", format)
    before = [path.read_bytes() for path in sorted(images.parent.rglob("*")) if path.is_file()]
    if format == "png":
        (images / "metadata.jsonl").unlink()
    else:
        np.savez(images, np.load(images)["arr_0"])
    monkeypatch.setattr(ImageWriter, "on_predict_batch_end", lambda *_: pytest.fail("a sample is generated again"))
    generate("a", format)
    assert [path.read_bytes() for path in sorted(images.parent.rglob("*")) if path.is_file()] == before


def test_samples_that_are_added_to_a_folder_have_captions(generate):
    generate("a", "png", num=2)
    assert captions(generate("a", "png")) == CYCLED


@pytest.mark.filterwarnings("ignore:FID of")
@pytest.mark.parametrize("format", ["npz", "png"])
def test_a_model_is_evaluated_with_the_captions_of_samples(generate, checkpoint, tmp_path, monkeypatch, format):
    """reference=SAMPLES: the network gets their captions, in their order."""
    images, seen = generate("a", format), []
    tokenize = Words.tokenize
    monkeypatch.setattr(Words, "tokenize", lambda self, texts: seen.extend(texts) or tokenize(self, texts))
    monkeypatch.setattr("ddpm.metrics.extractors.usual.usual", lambda data: Quarters())
    words = [f"ckpt={checkpoint}", f"reference={images}", "metric=fid", "num_samples=7", "+sampler.steps=2"]
    evaluate.run_evaluate(configured("evaluate", tmp_path, *words, "trainer=cpu", "keep_images=false", "batch_size=4"))
    assert [text for text in seen if text in CYCLED][-7:] == CYCLED


@pytest.mark.parametrize("texts", [np.array(["a"]), np.arange(3), np.array([["a"], ["b"], ["c"]])], ids=str)
def test_an_array_of_captions_that_are_not_one_text_for_each_image_is_refused(tmp_path, texts):
    np.savez(tmp_path / "a.npz", arr_0=np.zeros((3, 4, 4, 1), np.uint8), captions=texts)
    with pytest.raises(ValueError, match="captions must be 3 texts, one for each image"):
        Npz(str(tmp_path / "a.npz")).open()
