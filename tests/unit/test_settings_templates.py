"""What can be set about templates."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.errors import InvalidSpec
from firkin.settings import Settings, load


def settings(home: Path, **environ: str) -> Settings:
    return load({"FIRKIN_HOME": str(home), **environ})


def test_machines_are_forked_from_templates_unless_somebody_says_otherwise(tmp_path: Path) -> None:
    assert not settings(tmp_path).cold
    assert not settings(tmp_path, FIRKIN_COLD="0").cold
    assert settings(tmp_path, FIRKIN_COLD="1").cold
    (tmp_path / "config.toml").write_text("cold = true\ntemplates_mib = 100\n")
    assert settings(tmp_path).cold
    assert settings(tmp_path).templates_mib == 100
    assert not settings(tmp_path, FIRKIN_COLD="0").cold


@pytest.mark.parametrize("value", ["yes", "2", "true"])
def test_a_switch_is_0_or_1(tmp_path: Path, value: str) -> None:
    with pytest.raises(InvalidSpec, match="cold") as refusal:
        settings(tmp_path, FIRKIN_COLD=value)
    assert "FIRKIN_COLD" in refusal.value.hint


def test_room_for_templates_is_a_number(tmp_path: Path) -> None:
    assert settings(tmp_path, FIRKIN_TEMPLATES_MIB="512").templates_mib == 512
    with pytest.raises(InvalidSpec, match="templates_mib"):
        settings(tmp_path, FIRKIN_TEMPLATES_MIB="0")
