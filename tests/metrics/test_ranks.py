"""33 images on two processes are 33 images."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from processes import Command

SCRIPT = Path(__file__).with_name("ranks.py")
pytestmark = pytest.mark.filterwarnings("ignore:(FID|IS|KID|FrechetDistance|PrecisionRecall).* of")


def run_plain(folder):
    command = [sys.executable, str(SCRIPT), "plain", str(folder)]
    both = [subprocess.Popen([*command, str(rank), "2"]) for rank in range(2)]
    assert [each.wait(timeout=200) for each in both] == [0, 0]


def run_lightning(folder):
    process = Command(SCRIPT, "lightning", str(folder), "0", "2", folder=folder, two=True)
    output, _ = process.communicate()
    assert process.returncode == 0, output


@pytest.mark.parametrize("start", [pytest.param(run_plain, marks=pytest.mark.slow), run_lightning])
def test_two_processes_give_the_values_of_one(ranks, tmp_path, start):
    start(tmp_path)
    every = torch.arange(ranks.NUM_IMAGES)
    expected = ranks.evaluate(every, every, scores=ranks.every_score())
    assert {"kid_projection_33", "recall_projection_33_error", "coverage_of_2_projection_33"} < set(expected)
    of_classes = ranks.evaluate(every, every, scores=ranks.class_scores())
    assert {"fid_of_4_projection_33", "accuracy_projection_33_error", "cas_of_real_projection_33"} < set(of_classes)
    for rank in range(2):
        out = json.loads((tmp_path / f"{rank}.json").read_text())
        assert out["classes"] == pytest.approx(of_classes, rel=1e-9, abs=1e-12)
        assert out["shares"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert out["one_rank_has_all"] == pytest.approx(expected, rel=1e-9, abs=1e-12)
        assert "1 generated images were given more than once, e.g. number 0" in out["padded"]
