"""A spec refuses what cannot work, and says what would."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from firkin.errors import InvalidSpec
from firkin.settings import EngineChoice, NetworkMode, load
from firkin.spec import MachineSpec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"vcpus": 0}, "vcpus: 0"),
        ({"vcpus": 33}, "vcpus: 33"),
        ({"memory_mib": 0}, "memory: 0 MiB"),
        ({"memory_mib": 4097}, "more than this host has"),
        ({"name": "Web_1"}, "not a host name"),
        ({"name": "-x"}, "not a host name"),
        ({"name": "a" * 64}, "not a host name"),
    ],
)
def test_what_cannot_work_is_refused_with_a_hint(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said) as refusal:
        MachineSpec(**values).check(host_memory_mib=4096)
    assert refusal.value.hint


def test_all_of_the_hosts_memory_is_allowed_and_one_more_is_not() -> None:
    spec = MachineSpec()
    spec.check(host_memory_mib=spec.memory_mib)
    with pytest.raises(InvalidSpec):
        spec.check(host_memory_mib=spec.memory_mib - 1)


def test_the_environment_wins_over_the_config_file(tmp_path: Any) -> None:
    (tmp_path / "config.toml").write_text('engine = "firecracker"\nnetwork_mode = "host"\n')
    settings = load({"FIRKIN_HOME": str(tmp_path), "FIRKIN_ENGINE": "firkin-vmm"})
    assert (settings.engine, settings.network_mode) == (EngineChoice.FIRKIN_VMM, NetworkMode.HOST)


@pytest.mark.parametrize("environ", [{"FIRKIN_ENGINE": "qemu"}, {"FIRKIN_NETWORK_MODE": "bridge"}])
def test_a_setting_that_does_not_exist_is_named(tmp_path: Any, environ: dict[str, str]) -> None:
    with pytest.raises(InvalidSpec, match="is not one of"):
        load({"FIRKIN_HOME": str(tmp_path)} | environ)


def test_a_broken_config_file_is_named(tmp_path: Any) -> None:
    (tmp_path / "config.toml").write_text("engine = ")
    with pytest.raises(InvalidSpec, match=r"config\.toml"):
        load({"FIRKIN_HOME": str(tmp_path)})


def test_users_without_root_live_below_their_home() -> None:
    paths = load({"HOME": "/home/u", "XDG_RUNTIME_DIR": "/run/user/7"}, uid=7).paths
    assert str(paths.home) == "/home/u/.local/share/firkin"
    assert str(paths.run) == "/run/user/7/firkin"


def test_an_environment_may_be_a_mapping_and_is_kept_as_words() -> None:
    spec = MachineSpec(env={"A": "1", "B": "x=y"}, command=["sleep", "1"])
    assert (spec.env, spec.command) == (("A=1", "B=x=y"), ("sleep", "1"))
    assert msgspec.json.decode(msgspec.json.encode(spec), type=MachineSpec) == spec
    assert MachineSpec(env=("A=1", "B=x=y"), command=("sleep", "1")) == spec


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"env": ("A",)}, "'A' is not NAME=VALUE"),
        ({"env": {"": "x"}}, "'=x' is not NAME=VALUE"),
        ({"env": {"A": "x\0"}}, "not NAME=VALUE"),
        ({"env": "A=1"}, "one text"),
        ({"command": "sleep 1"}, "one text"),
    ],
)
def test_a_word_that_is_none_is_refused(values: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidSpec, match=said) as refusal:
        MachineSpec(**values)
    assert refusal.value.hint
