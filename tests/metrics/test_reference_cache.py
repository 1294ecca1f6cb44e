"""Features of the reference images: made once, read back to the bit, and never a reason to fail."""

import os
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ddpm.base.user_cache import user_cache
from ddpm.metrics import reference_cache
from ddpm.metrics.reference_cache import ReferenceCache
from ddpm.metrics.score import FeatureSet, Moments
from ddpm.metrics.statistics import read_statistics

NUM = 50
EXTRACTOR = SimpleNamespace(name="mnist", weights_hash="ab", preprocessing="uint8")
KEY = "0" * 64


@pytest.fixture
def cache(tmp_path):
    return ReferenceCache(tmp_path / "cache")


def made(rows=True, moments=True, layers=("pooled", "pixels")):
    """A set of each layer, of the same images."""
    ids, labels = torch.arange(NUM) * 2, torch.arange(NUM) % 3
    sets = {}
    for width, layer in enumerate(layers, 3):
        x = torch.randn(NUM, width, generator=torch.Generator().manual_seed(width))
        exact = x.double()
        of_all = Moments.from_sums(NUM, exact.sum(0), exact.T @ exact)
        sets[layer] = FeatureSet(NUM, of_all if moments else None, x if rows else None, ids, labels)
    return sets


def assert_same(one, other):
    """To the bit, but for the covariance, which is made symmetric."""
    one, other = ({layer: asdict(each) for layer, each in sets.items()} for sets in (one, other))
    torch.testing.assert_close(one, other, rtol=1e-14, atol=0)


@pytest.mark.parametrize(("rows", "moments"), [(True, True), (True, False), (False, True), (False, False)])
def test_what_is_put_is_got(rows, moments, cache, capsys):
    assert cache.get(KEY) is None
    cache.put(KEY, made(rows, moments))
    assert_same(cache.get(KEY), made(rows, moments))
    assert f"{KEY}.npz (0 MB)" in capsys.readouterr().out
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY}.npz"]


def test_other_programs_read_the_moments(cache):
    cache.put(KEY, made())
    with np.load(cache.path(KEY)) as file:
        np.testing.assert_array_equal(file["mu"], made()["pooled"].moments.mean)
    moments, _ = read_statistics(cache.path(KEY))
    assert moments["pooled"].num == NUM


def test_a_score_that_needs_less_does_not_take_away_what_another_needs(cache):
    cache.put(KEY, made(rows=False))
    cache.put(KEY, made(moments=False))
    assert_same(cache.get(KEY), made())
    cache.put(KEY, made(rows=False))
    assert_same(cache.get(KEY), made())


def test_every_part_of_the_key_counts_and_the_order_of_layers_does_not(cache):
    def key(data_hash="cd", **changes):
        return cache.key(data_hash, SimpleNamespace(**{**vars(EXTRACTOR), **changes}))

    others = [
        key(data_hash="ce"),
        key(name="other"),
        key(weights_hash="ac"),
        key(preprocessing="another"),
    ]
    assert len({key(), *others}) == 5
    assert len(key()) == 64


def test_another_layout_is_another_key(cache, monkeypatch):
    before = cache.key("cd", EXTRACTOR)
    monkeypatch.setattr(reference_cache, "LAYOUT", reference_cache.LAYOUT + 1)
    assert cache.key("cd", EXTRACTOR) != before


def test_the_folder_is_where_the_user_says(monkeypatch):
    monkeypatch.delenv("DDPM_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", "somebody")
    assert user_cache("references") == Path("somebody/.cache/ddpm/references")
    monkeypatch.setenv("XDG_CACHE_HOME", "shared")
    assert user_cache("references") == Path("shared/ddpm/references")
    monkeypatch.setenv("DDPM_CACHE", "chosen")
    assert ReferenceCache().folder == Path("chosen/references")


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit_of_a_row(path):
    data = bytearray(path.read_bytes())
    data[data.index(b"rows_pooled.npy") + 300] ^= 1
    path.write_bytes(data)


def empty(path):
    path.write_bytes(b"")


def drop_the_layers(path):
    with np.load(path) as file:
        arrays = {name: file[name] for name in file if name != "about"}
    np.savez(path, **arrays)


def shorten_the_rows(path):
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "rows_pooled": arrays["rows_pooled"][:-1]})


@pytest.mark.parametrize("damage", [cut, flip_a_bit_of_a_row, empty, drop_the_layers, shorten_the_rows])
def test_a_damaged_file_is_absent_with_one_line_and_written_again(damage, cache, capsys):
    cache.put(KEY, made())
    damage(cache.path(KEY))
    capsys.readouterr()
    assert cache.get(KEY) is None
    told = capsys.readouterr().out
    assert told.startswith("cached features are damaged and will be computed again: ")
    assert told.count("\n") == 1
    cache.put(KEY, made())
    assert_same(cache.get(KEY), made())


def test_a_folder_that_cannot_be_written_is_a_line_and_no_failure(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cache = ReferenceCache(tmp_path / "file" / "references")  # root may write anywhere, but not below a file
    cache.put(KEY, made())
    told = capsys.readouterr().out
    assert told.startswith("features of the reference are not cached: ")
    assert told.count("\n") == 1
    assert cache.get(KEY) is None


def test_a_full_disk_leaves_what_was_there(cache, monkeypatch, capsys):
    cache.put(KEY, made(rows=False))
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError("no space left")))
    cache.put(KEY, made())
    assert "are not cached: no space left" in capsys.readouterr().out
    assert_same(cache.get(KEY), made(rows=False))
    assert [path.name for path in cache.folder.iterdir()] == [f"{KEY}.npz"]
