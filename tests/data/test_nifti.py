"""Slices of NIfTI volumes: which way up, which values, and what a damaged file says."""

import sys

import nibabel
import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from ddpm.data.anomalies.nifti import NiftiLesions
from ddpm.data.sources.nifti import Nifti

RAMP = np.arange(6 * 7 * 8, dtype=np.float32).reshape(6, 7, 8)


def written(path, values, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


def slices(root, **changes):
    fields = {"axis": "axial", "slices": None, "step": 1, "window": [0, 100], **changes}
    return Nifti(str(root), **fields)


@pytest.mark.parametrize(
    ("axis", "depth", "shape"), [("sagittal", 6, (8, 7)), ("coronal", 7, (8, 6)), ("axial", 8, (7, 6))]
)
def test_a_slice_stands_upright_with_the_window_of_its_volume(tmp_path, axis, depth, shape):
    """Rows run from the head, or the front, and columns from left to right or back to front."""
    written(tmp_path / "a.nii.gz", RAMP)
    opened = slices(tmp_path, axis=axis).open()
    assert len(opened) == depth
    image = opened.image(2)[:, :, 0]
    assert image.shape == shape
    number = ("sagittal", "coronal", "axial").index(axis)
    expected = RAMP.take(2, axis=number).T[::-1]
    low, high = 1.0, RAMP.max()  # percentiles 0 and 100 of what is above the least value
    np.testing.assert_array_equal(image, np.rint(np.clip((expected - low) / (high - low), 0, 1) * 255))


def test_a_volume_stored_the_other_way_round_gives_the_same_images(tmp_path):
    written(tmp_path / "one" / "a.nii", RAMP)
    flipped = np.ascontiguousarray(RAMP[::-1].transpose(1, 0, 2))  # y first, and x from right to left
    affine = np.array([[0, -1, 0, 5], [1, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    written(tmp_path / "other" / "a.nii", flipped, affine)
    for axis, depth in (("axial", 8), ("sagittal", 6)):
        one, other = (slices(tmp_path / name, axis=axis).open() for name in ("one", "other"))
        assert len(one) == len(other) == depth
        for index in range(depth):
            np.testing.assert_array_equal(one.image(index), other.image(index))


def test_a_window_clips_the_percentiles(tmp_path):
    written(tmp_path / "a.nii", np.concatenate([np.zeros(64), np.arange(1, 449)]).astype(np.float32).reshape(8, 8, 8))
    volume = np.concatenate([slices(tmp_path, window=[25, 75]).open().image(i).ravel() for i in range(8)])
    assert (volume == 0).sum() == pytest.approx(64 + 112, abs=1)  # air, and a quarter of the rest
    assert (volume == 255).sum() == pytest.approx(112, abs=1)


def test_a_volume_of_two_values_is_black_and_white(tmp_path):
    written(tmp_path / "a.nii", (RAMP % 2).astype(np.float32))
    image = slices(tmp_path, axis="sagittal", window=[1, 99]).open().image(0)[:, :, 0]
    np.testing.assert_array_equal(image, 255 * (RAMP[0].T[::-1] % 2))
    assert set(np.unique(image)) == {0, 255}


def test_chosen_slices_and_steps(tmp_path):
    written(tmp_path / "a.nii", RAMP)
    written(tmp_path / "b" / "b.nii.gz", RAMP)
    opened = slices(tmp_path, slices=[2, 6], step=2).open()
    assert [opened.name(i).split(", ")[1] for i in range(len(opened))] == ["slice 2", "slice 4", "slice 6"] * 2
    assert opened.fingerprint() != slices(tmp_path, slices=[2, 6], step=3).open().fingerprint()


def test_a_constant_volume_and_one_with_holes_have_numbers(tmp_path):
    written(tmp_path / "a.nii", np.full((4, 4, 4), 3.0, dtype=np.float32))
    written(tmp_path / "b.nii", np.where(RAMP % 5 == 0, np.nan, RAMP).astype(np.float32))
    opened = slices(tmp_path).open()
    assert len({opened.image(i).max() for i in range(4)} | {opened.image(i).min() for i in range(4)}) == 1
    assert opened.image(len(opened) - 1).max() == 250  # 327 of 334, the largest that is a number


def test_data_nifti_trains_like_any_other(config, tmp_path):
    for name in "abc":
        written(tmp_path / "scans" / f"{name}.nii.gz", RAMP)
    chosen = config("train", "data=nifti", f"data.source.root={tmp_path / 'scans'}", "data.size=16", "data.num_val=4")
    data = instantiate(chosen.data)
    data.prepare_data()
    assert len(data.split("train")) == 20
    assert next(data.split("train").batches(5)).shape == (5, 1, 16, 16)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"axis": "z"}, "data.source.axis must be one of sagittal, coronal, axial, got 'z'"),
        ({"step": 0}, "data.source.step must be a positive integer"),
        ({"slices": [5, 2]}, r"data.source.slices must be \[first, last\]"),
        ({"slices": [2, 8]}, r"data.source.slices must be at most 7: .*a.nii has 8 axial slices"),
        ({"window": [99, 1]}, r"data.source.window must be \[low, high\]"),
    ],
)
def test_fields_that_cannot_be_are_refused(tmp_path, changes, message):
    written(tmp_path / "a.nii", RAMP)
    with pytest.raises(ValueError, match=message):
        slices(tmp_path, **changes).open()


def test_what_is_no_volume_is_named(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="a folder with volumes"):
        slices(tmp_path).open()
    written(tmp_path / "four.nii", np.zeros((3, 3, 3, 2), dtype=np.float32))
    with pytest.raises(ValueError, match=r"four.nii has 4 dimensions, but a volume has 3"):
        slices(tmp_path).open()
    (tmp_path / "four.nii").write_bytes(b"not a volume at all")
    with pytest.raises(ValueError, match=r"four.nii is not a NIfTI volume"):
        slices(tmp_path).open()
    (tmp_path / "four.nii").unlink()
    written(tmp_path / "rgb.nii", np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")]))
    with pytest.raises(ValueError, match=r"rgb.nii has voxels of type .*, but they must be real numbers"):
        slices(tmp_path).open()
    (tmp_path / "rgb.nii").unlink()
    path = written(tmp_path / "flat.nii", RAMP)
    content = bytearray(path.read_bytes())
    content[280:328] = np.diag([1, 1, 0, 1])[:3].astype("<f4").tobytes()  # srow_x, srow_y, srow_z
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"flat.nii has no orientation"):
        slices(tmp_path).open()
    path.unlink()
    path = written(tmp_path / "cut.nii", RAMP)
    path.write_bytes(path.read_bytes()[:600])
    with pytest.raises(ValueError, match=r"cut.nii is damaged"):
        slices(tmp_path).open().image(0)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(ValueError, match=r"data=nifti needs nibabel, .* pip install ddpm\[nifti\]"):
        slices(tmp_path).open()


def test_a_flipped_bit_in_a_compressed_volume_is_noticed(tmp_path):
    noise = np.random.default_rng(0).random((20, 20, 20), dtype=np.float32)
    path = written(tmp_path / "a.nii.gz", noise)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"a.nii.gz is damaged"):
        slices(tmp_path).open().image(0)


def test_lesions_speak_of_their_own_fields(tmp_path):
    with pytest.raises(ValueError, match=r"anomalies.axis must be one of sagittal"):
        NiftiLesions(str(tmp_path), "z", None, 1, [0, 100], None)
    with pytest.raises(ValueError, match=r"anomalies.root must be a folder with volumes, .*images'"):
        NiftiLesions(str(tmp_path), "axial", None, 1, [0, 100], None).read((1, 7, 6), None)


def test_volumes_with_lesions_beside_them(tmp_path):
    lesion = np.zeros(RAMP.shape, dtype=np.uint8)
    lesion[1, 2, 3], lesion[5, 0, 3] = 2, 1
    written(tmp_path / "images" / "a.nii.gz", RAMP)
    written(tmp_path / "masks" / "a.nii.gz", lesion)
    source = NiftiLesions(str(tmp_path), "axial", None, 1, [0, 100], None)
    found = source.read((1, 7, 6), None)
    assert found.kinds == ("good",) * 3 + ("lesion",) + ("good",) * 4
    assert found.masks[3].nonzero().tolist() == [[4, 1], [6, 5]]  # row 6 - y, column x
    expected = slices(tmp_path / "images").open().image(3)
    assert torch.equal(found.images[3, 0], torch.from_numpy(expected[:, :, 0]))
    written(tmp_path / "masks" / "a.nii.gz", lesion[:3])
    with pytest.raises(ValueError, match=r"has the shape \(3, 7, 8\), but .* \(6, 7, 8\)"):
        source.read((1, 7, 6), None)
    (tmp_path / "masks" / "a.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"has no mask: .*masks.a.nii.gz does not exist"):
        source.read((1, 7, 6), None)
