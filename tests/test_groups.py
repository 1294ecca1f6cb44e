"""A new group of the configuration is one row of the table, and counts everywhere."""

import pytest
from omegaconf import OmegaConf

from ddpm.checkpoint import groups
from ddpm.checkpoint.groups import Group
from ddpm.checkpoint.stored_config import refuse_without_model, upgrade_config
from ddpm.config import load
from ddpm.generation.identity import describe_groups, image_settings
from ddpm.runs.portable import to_portable
from ddpm.runs.resume import setting_differences

TARGET = "ddpm.diffusion.noises.simplex.Simplex"


@pytest.fixture
def made_up(small, monkeypatch):
    """`made_up(5)`: a configuration with this group."""
    row = Group("made_up", builds=True, decides_images=True, before={"_target_": TARGET, "octaves": 1})
    monkeypatch.setattr(groups, "GROUPS", [*groups.GROUPS, row, Group("of_this_machine", stored=False)])
    return lambda octaves: small(f"+made_up={{_target_: {TARGET}, octaves: {octaves}}}", "+of_this_machine={a: 1}")


def test_a_group_is_stored_compared_and_told_by_its_row_alone(made_up):
    one, other, older = made_up(5), made_up(6), made_up(1)
    stored = to_portable(one)
    assert stored["made_up"] == {"_target_": TARGET, "octaves": 5}
    assert "of_this_machine" not in stored
    assert setting_differences(stored, to_portable(other)) == {"made_up.octaves": (5, 6)}
    assert image_settings(one, {})["made_up"] == stored["made_up"]
    assert describe_groups(image_settings(one, {}))["made_up"] == "Simplex(octaves=5)"
    assert load.changes(one).made_up == stored["made_up"]
    with pytest.raises(ValueError, match=r"has no 'made_up', so no model can be built"):
        refuse_without_model({**stored, "made_up": None}, "a file")
    del stored["made_up"]
    assert upgrade_config(stored, "a file")["made_up"]["octaves"] == 1
    assert "made_up" not in image_settings(older, {}), "as in records from before it"
    assert setting_differences(upgrade_config(stored, "a file"), to_portable(older)) == {}


def test_every_group_of_the_configuration_has_a_row(config):
    composed = OmegaConf.to_container(config("train"), resolve=False)
    assert composed.keys() - {"hydra"} <= set(groups.group_names())
