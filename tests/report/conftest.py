"""What several tests of the report need."""

import pytest
from report.made_up import make_run, result

from ddpm.metrics.protocol import write_result


@pytest.fixture
def two_runs(tmp_path):
    """A sweep of two runs that differ in schedule, each with a result."""
    sweep = tmp_path / "2026-01-02_03-04-05_sweep"
    cosine = {"_target_": "ddpm.diffusion.schedules.curves.cosine", "num_timesteps": 100, "offset": 0.008}
    first = make_run(sweep / "0", ["schedule=linear", "seed=0"])
    second = make_run(sweep / "1", ["schedule=cosine", "seed=0"], schedule=cosine)
    write_result(first / "evaluations" / "a.json", result({"fid_digits_1k": 9.0}, {"fid_digits_1k": 0.2}))
    write_result(second / "evaluations" / "b.json", result({"fid_digits_1k": 8.8}, {"fid_digits_1k": 0.2}))
    return sweep
