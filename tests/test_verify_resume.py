"""The command that proves on a user's own settings that nothing is lost."""

import pytest
from small_runs import SMALL

from ddpm.commands import train, verify_resume


@pytest.mark.slow
def test_it_says_of_every_part_that_it_is_equal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["verify_resume", *SMALL, "model.dropout=0.1", "data.num_val=20"])
    verify_resume.main()
    told = capsys.readouterr().out
    assert told.count("bitwise equal") == 8
    assert "the resumed run is the same as the uninterrupted run" in told


def test_it_sees_every_kind_of_difference(small, tmp_path):
    folders = []
    for name, *overrides in [("one",), ("other", "seed=1")]:
        config = small("logger=csv", "trainer.max_steps=2", f"run_dir={tmp_path / name}", *overrides)
        train.run_train(config)
        folders.append(tmp_path / name)
    found = verify_resume.compare_runs(*folders)
    assert not any(verify_resume.compare_runs(folders[0], folders[0]).values())
    for part in ("state_dict", "optimizer_states", "metrics.csv", "pictures"):
        assert found[part], part
    assert not found["global_step"]
