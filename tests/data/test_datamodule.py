"""What a run and its evaluation get from the data module, with and without Lightning's trainer."""

import hashlib
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from omegaconf import OmegaConf
from PIL import Image

from ddpm.base import check
from ddpm.data.datamodule import ImageDataModule
from ddpm.data.sources.cifar10 import Cifar10
from ddpm.data.sources.digits import Digits
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.parquet import Parquet
from ddpm.data.sources.zip import Zip

pytestmark = pytest.mark.filterwarnings("ignore:Checkpoint directory", "ignore:The dirpath has changed")

CONF = Path(__file__).parents[2] / "conf" / "data"


def module(source, **options) -> ImageDataModule:
    return ImageDataModule(source, **{"name": "test", "channels": 3, "size": 8, "batch_size": 4, **options})


class Places:
    """What the data module asks of a trainer."""

    def __init__(self, rank: int, world_size: int, accumulation: int = 1):
        self.global_rank, self.world_size, self.accumulate_grad_batches = rank, world_size, accumulation
        self.strategy = type("Strategy", (), {"root_device": torch.device("cpu")})


def indices(loader) -> list[int]:
    return [i for batch in loader for i in batch["index"].tolist()]


@pytest.mark.parametrize("memory_limit_mb", [0, 1], ids=["streamed", "in memory"])
@pytest.mark.parametrize("kind", ["folder", "zip", "parquet"])
def test_every_source_yields_its_pixels_in_memory_and_streamed(
    class_folder, edm_zip, parquet_files, pixels, kind, memory_limit_mb
):
    source = {"folder": Folder(str(class_folder)), "zip": Zip(str(edm_zip)), "parquet": Parquet(parquet_files)}[kind]
    data = module(source, memory_limit_mb=memory_limit_mb, num_workers=2 if kind == "zip" else 0)
    data.setup()
    order = [0, 3, 6, 9, 1, 4, 7, 10, 2, 5, 8, 11] if kind == "folder" else range(12)
    got = torch.cat([batch["image"] for batch in data.eval_loader("train")])
    expected = torch.from_numpy(pixels[list(order)]).permute(0, 3, 1, 2) / 127.5 - 1
    assert torch.equal(got, expected)


def test_the_content_hash_is_of_pixels_and_labels_wherever_they_are_kept(class_folder, edm_zip):
    in_memory, streamed = module(Folder(str(class_folder))), module(Folder(str(class_folder)), memory_limit_mb=0)
    assert in_memory.content_hash() == streamed.content_hash()
    assert in_memory.content_hash() != module(Zip(str(edm_zip))).content_hash()
    assert in_memory.content_hash() != module(Folder(str(class_folder), layout="flat")).content_hash()
    assert in_memory.content_hash(num_images=5) != in_memory.content_hash()


def test_the_content_hash_can_be_computed_by_hand(edm_zip, pixels):
    total = hashlib.sha256(b"3x8x8\n")
    for image in pixels:
        total.update(hashlib.sha256(image.transpose(2, 0, 1).tobytes()).digest())
    total.update((np.arange(12) % 4).astype("<i8").tobytes())
    assert module(Zip(str(edm_zip))).content_hash() == total.hexdigest()


def test_without_a_look_at_the_images_the_hash_says_that_it_is_a_listing(edm_zip):
    data = module(Zip(str(edm_zip)), memory_limit_mb=0, verify=False)
    assert data.content_hash().startswith("listing-")
    assert data.content_hash() == module(Zip(str(edm_zip)), memory_limit_mb=0, verify=False).content_hash()
    resized = module(Zip(str(edm_zip)), memory_limit_mb=0, verify=False, size=4, resize="box")
    assert resized.content_hash() != data.content_hash()


@pytest.fixture
def broken_folder(class_folder):
    """Three of twelve images are cut off, empty, and no image at all."""
    whole = (class_folder / "a" / "00.png").read_bytes()
    (class_folder / "a" / "00.png").write_bytes(whole[: len(whole) // 2])
    (class_folder / "b" / "01.png").write_bytes(b"")
    (class_folder / "c" / "02.png").write_text("<html>404</html>")
    return class_folder


@pytest.mark.parametrize(("memory_limit_mb", "num_workers"), [(1, 0), (0, 0), (1, 2), (0, 2)])
def test_broken_files_are_all_named_before_training(broken_folder, memory_limit_mb, num_workers):
    data = module(Folder(str(broken_folder)), memory_limit_mb=memory_limit_mb, num_workers=num_workers)
    with pytest.raises(ValueError, match=r"3 of 12 images cannot be used") as error:
        data.setup("fit")
    for name in ("a/00.png", "b/01.png", "c/02.png", "data.on_broken=skip"):
        assert name in str(error.value)
    assert "a/03.png" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({}, "12 training images"),
        ({"num_val": 2}, "10 training images, 2 held out"),
        ({"num_val": 2, "num_train": 5}, "5 of 10 training images, 2 held out"),
    ],
)
def test_the_first_line_counts_the_images_that_are_trained_on(class_folder, capfd, caplog, settings, text):
    module(Folder(str(class_folder)), **settings).setup("fit")
    assert f"data=test: {text}, in memory" in caplog.text


def test_one_reason_and_one_remedy_are_named_once_for_all_images(class_folder):
    with pytest.raises(ValueError, match=r"12 of 12 images do not fit the settings") as error:
        module(Folder(str(class_folder)), size=9).setup("fit")
    _, example, remedy = str(error.value).splitlines()
    assert ".png and 9 more: is 8 x 8, but data.size is 9 x 9" in example
    assert remedy.startswith("Remedy: set data.resize")
    assert remedy.endswith(", or data.size=[8,8]")
    for setting in ({"size": 9, "resize": "box"}, {"size": [8, 8]}):
        assert module(Folder(str(class_folder)), **setting).num_train == 12


@pytest.mark.parametrize("memory_limit_mb", [0, 1])
def test_broken_files_are_skipped_with_a_count_if_asked(broken_folder, memory_limit_mb):
    data = module(Folder(str(broken_folder)), on_broken="skip", memory_limit_mb=memory_limit_mb, batch_size=3)
    with pytest.warns(UserWarning, match=r"skipped 3 of 12 images"):
        data.setup("fit")
    assert data.num_train == 9
    assert indices(data.eval_loader()) == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    assert sorted(indices(data.train_dataloader())) == [1, 2, 3, 5, 6, 7, 9, 10, 11]
    labels = [label for batch in data.eval_loader() for label in batch["label"].tolist()]
    assert labels == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_a_long_list_of_broken_files_is_cut_with_a_count(tmp_path):
    for i in range(30):
        (tmp_path / f"{i:02d}.png").write_bytes(b"")
    with pytest.raises(ValueError, match=r"(?s)30 of 30.*19\.png.*and 10 more") as error:
        module(Folder(str(tmp_path))).setup()
    assert "20.png" not in str(error.value)
    with pytest.raises(ValueError, match=r"(?s)30 of 30 images cannot be used.*Repair or remove them$"):
        module(Folder(str(tmp_path)), on_broken="skip").setup()


def test_a_broken_file_met_while_streaming_is_named(broken_folder):
    data = module(Folder(str(broken_folder)), memory_limit_mb=0, verify=False, num_workers=2)
    data.setup("fit")
    with pytest.raises(ValueError, match=r"0[0-2]\.png: .*(?s:.*)data\.verify=true"):
        indices(data.train_dataloader())


def test_an_image_of_another_size_is_named_and_never_skipped(class_folder):
    Image.new("RGB", (9, 8)).save(class_folder / "b" / "odd.png")
    with pytest.raises(ValueError, match=r"(?s)1 of 13 images.*odd\.png: is 8 x 9, but data.size is 8 x 8"):
        module(Folder(str(class_folder)), on_broken="skip").setup()
    module(Folder(str(class_folder)), resize="lanczos").setup()


def test_held_out_images_are_the_same_for_every_seed_and_not_trained_on(edm_zip):
    one, other = (module(Zip(str(edm_zip)), num_val=4, seed=seed) for seed in (0, 1))
    held_out = indices(one.val_dataloader())
    assert held_out == indices(other.val_dataloader())
    assert sorted(held_out + indices(one.train_dataloader())) == list(range(12))
    assert one.num_train == 8
    assert one.content_hash("val") != one.content_hash("train")


def test_validation_is_the_test_split_if_nothing_is_held_out(edm_zip, class_folder):
    test = Folder(str(class_folder), layout="flat")
    assert len(indices(module(Zip(str(edm_zip)), test_source=test).val_dataloader())) == 12
    assert len(indices(module(Zip(str(edm_zip)), test_source=test, num_val=2).val_dataloader())) == 2
    assert module(Zip(str(edm_zip))).val_dataloader() == []


def test_a_test_split_with_other_classes_is_refused(parquet_files, class_folder):
    data = module(Parquet(parquet_files), test_source=Folder(str(class_folder)))
    with pytest.raises(ValueError, match="numbers its classes differently"):
        data.setup()


@pytest.mark.parametrize("num_images", [None, 5])
def test_evaluation_images_are_shared_out_without_padding(edm_zip, num_images):
    seen = []
    for rank in range(5):
        data = module(Zip(str(edm_zip)), eval_batch_size=2)
        data.trainer = Places(rank, world_size=5)
        seen += indices(data.eval_loader("train", num_images))
    assert sorted(seen) == data.split("train", num_images).indices.tolist()
    assert len(seen) == (num_images or 12)


def test_more_devices_than_images_are_refused(edm_zip):
    data = module(Zip(str(edm_zip)), num_val=2)
    data.trainer = Places(0, world_size=4)
    with pytest.raises(ValueError, match="4 devices cannot share the 2 images"):
        data.val_dataloader()


def test_the_batch_is_divided_over_devices_and_accumulation(edm_zip):
    data = module(Zip(str(edm_zip)), batch_size=8)
    data.trainer = Places(1, world_size=2, accumulation=2)
    batches = list(data.train_dataloader())
    assert [len(batch["index"]) for batch in batches] == [2, 2]
    assert data.eval_batch_size == 2
    data.trainer = Places(0, world_size=3)
    assert data.eval_batch_size == 2  # evaluation does not mind
    with pytest.raises(ValueError, match=r"data\.batch_size .* 3 x 1 = 3, got 8; use 6 or 9"):
        data.train_dataloader()


def test_shape_classes_and_counts_are_known(parquet_files):
    data = module(Parquet(parquet_files), size=[8, 8])
    assert (data.channels, data.size, data.image_shape) == (3, (8, 8), (3, 8, 8))
    assert (data.class_names, data.num_classes, data.num_train) == (("cat", "dog"), 2, 12)


def test_the_number_of_classes_is_checked(edm_zip, class_folder):
    assert module(Zip(str(edm_zip))).num_classes == 4
    assert module(Folder(str(class_folder), layout="flat")).num_classes is None
    with pytest.raises(ValueError, match=r"data\.num_classes must be 4, .*got 3"):
        module(Zip(str(edm_zip)), num_classes=3).setup()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, r"data\.batch_size must be a positive integer, got 0"),
        ({"size": 0}, r"data\.size"),
        ({"seed": -1}, r"seed"),
        ({"num_val": 1.5}, r"data\.num_val"),
        ({"flip": "yes"}, r"data\.flip must be true or false, got 'yes'"),
        ({"num_workers": -1}, r"data\.num_workers"),
        ({"memory_limit_mb": -1}, r"data\.memory_limit_mb"),
        ({"on_broken": "skipp"}, r"data\.on_broken must be one of stop, skip.*did you mean 'skip'"),
        ({"on_broken": "skip", "verify": False}, r"data\.on_broken=skip needs data\.verify=true"),
        ({"download": True}, r"data\.download must be false for data=test"),
        ({"num_classes": 0}, r"data\.num_classes"),
        ({"eval_batch_size": 0}, r"data\.eval_batch_size"),
        ({"crop": [0, 2]}, r"data\.crop"),
        ({"pin_memory": 1}, r"data\.pin_memory"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "-".join(value),
)
def test_wrong_options_name_field_and_value(options, message):
    with pytest.raises(ValueError, match=message):
        module(Digits(), **options)


def test_too_many_held_out_images_are_refused(edm_zip):
    with pytest.raises(ValueError, match=r"data\.num_val must be less than the number of images, 12, got 12"):
        module(Zip(str(edm_zip)), num_val=12).setup("fit")


def test_an_unknown_split_is_refused(edm_zip):
    for split, message in (("tset", "did you mean 'test'"), ("test", "no data.test_source"), ("val", "data.num_val")):
        with pytest.raises(ValueError, match=message):
            module(Zip(str(edm_zip))).eval_loader(split)


def test_downloading_is_asked_of_both_splits(monkeypatch):
    asked = []
    monkeypatch.setattr(Cifar10, "download", lambda self: asked.append(self.split))
    data = module(Cifar10("x"), test_source=Cifar10("x", "test"), size=32, download=True)
    data.prepare_data()
    assert asked == ["train", "test"]
    module(Cifar10("x")).prepare_data()
    assert len(asked) == 2


@pytest.mark.parametrize("option", sorted(path.stem for path in CONF.glob("[!_]*.yaml")))
def test_each_config_builds(config, option):
    from hydra.utils import instantiate

    config = config("train", f"data={option}", "seed=3")
    for name in ("root", "path"):
        if OmegaConf.is_missing(config.data.source, name):
            config.data.source[name] = "somewhere"
    data = instantiate(config.data)
    assert data.image_shape == (config.data.channels, *check.height_width("data.size", config.data.size))
    assert (data.name, data.seed) == (option, 3)


@pytest.mark.parametrize(("name", "shape"), [("mnist", (1, 28, 28)), ("digits", (1, 8, 8))])
def test_the_data_sets_that_are_shipped_need_no_download(config, name, shape):
    from hydra.utils import instantiate

    data = instantiate(config("train", f"data={name}").data)
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (data.batch_size, *shape)
    assert (batch["image"].min(), batch["image"].max()) == (-1, 1)
    assert set(batch["label"].tolist()) <= set(range(10))


# With Lightning.


class Recorder(LightningModule):
    """Writes down the images of each training and validation batch and the epoch in which it saw them."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen, self.validated = [], []

    def training_step(self, batch, _):
        self.seen.append((self.current_epoch, batch["index"].tolist(), batch["image"].sum().item()))
        return self.weight * batch["image"].mean()

    def validation_step(self, batch, _):
        self.validated += batch["index"].tolist()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trained(data, folder, max_epochs=3, ckpt_path=None, **options) -> Recorder:
    recorder = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        max_epochs=max_epochs,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
        callbacks=[
            ModelCheckpoint(folder, "{step}", every_n_train_steps=1, save_top_k=-1, save_on_train_epoch_end=False)
        ],
        **options,
    )
    trainer.fit(recorder, datamodule=data, ckpt_path=ckpt_path)
    return recorder


@pytest.mark.parametrize(("num_workers", "accumulation"), [(0, 1), (2, 1), (0, 2)])
def test_lightning_resumes_with_exactly_the_remaining_images(edm_zip, tmp_path, num_workers, accumulation):
    """12 images in batches of 4: 3 steps an epoch. From a checkpoint at every step, also at an epoch's last."""

    def data():
        return module(Zip(str(edm_zip)), flip=True, memory_limit_mb=0, num_workers=num_workers, num_val=0)

    options = {"accumulate_grad_batches": accumulation}
    whole = trained(data(), tmp_path, **options).seen
    assert len(whole) == 9 * accumulation
    assert [epoch for epoch, _, _ in whole] == [e for e in range(3) for _ in range(3 * accumulation)]
    for step in (1, 3, 5) if num_workers == 0 else (4,):
        resumed = trained(data(), tmp_path / "again", ckpt_path=tmp_path / f"step={step}.ckpt", **options).seen
        assert resumed == whole[step * accumulation :], step


def test_lightning_validates_on_the_held_out_images(edm_zip, tmp_path):
    data = module(Zip(str(edm_zip)), num_val=3)
    recorder = trained(data, tmp_path, max_epochs=1)
    assert recorder.validated == indices(data.val_dataloader())
    assert not set(recorder.validated) & {i for _, some, _ in recorder.seen for i in some}


def test_lightning_skips_validation_without_a_warning_where_there_are_no_images_for_it(edm_zip, tmp_path, recwarn):
    assert trained(module(Zip(str(edm_zip))), tmp_path, max_epochs=1).validated == []
    assert not [w for w in recwarn if "Total length" in str(w.message)]


def test_a_second_fit_of_the_same_data_module_starts_afresh(edm_zip, tmp_path):
    data = module(Zip(str(edm_zip)))
    assert trained(data, tmp_path, max_epochs=1).seen == trained(data, tmp_path, max_epochs=1).seen


def inspect_on_rank(rank: int, folder: str, store: str) -> None:
    torch.set_num_threads(1)  # a forked process must not wait for its parent's threads
    warnings.simplefilter("ignore")
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    data = module(Folder(folder), on_broken="skip", memory_limit_mb=0)
    data.setup("fit")
    torch.save((data.content_hash(), data.split("train").indices.tolist()), f"{store}{rank}")
    torch.distributed.destroy_process_group()


def test_ranks_share_the_look_at_the_images_and_agree_on_what_they_found(broken_folder, tmp_path):
    store = str(tmp_path / "store")
    torch.multiprocessing.start_processes(inspect_on_rank, (str(broken_folder), store), nprocs=2, start_method="fork")
    alone = module(Folder(str(broken_folder)), on_broken="skip")
    with pytest.warns(UserWarning, match="skipped 3"):
        alone.setup("fit")
    for rank in (0, 1):
        assert torch.load(f"{store}{rank}") == (alone.content_hash(), alone.split("train").indices.tolist())
