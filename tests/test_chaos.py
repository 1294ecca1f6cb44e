"""Random kills of short commands; `make chaos N=200` is the same with more of them."""

import pytest
from chaos import KINDS, SWEEP, chaos

# The variants that differ most run always; two processes meet what a single one meets, workers die in test_resume.py.
SLOW = ("plain", "accumulation 2", "2 workers", SWEEP)


@pytest.mark.parametrize(
    "variant", [pytest.param(each, marks=pytest.mark.slow if each in SLOW else ()) for each in KINDS]
)
def test_a_run_killed_at_random_moments_loses_nothing(tmp_path, monkeypatch, variant):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    told = chaos(2, seed=len(variant), place=tmp_path, variants=(variant,))
    assert told["kills"] == 2
    assert told["lost_steps"] == told["differing"] == 0
