from __future__ import annotations

import os
from pathlib import Path

import pytest

from firkin.jailer import cgroups
from firkin.jailer.cgroups import Hierarchies, Inherit, Join, MakeGroup, Move, Write
from firkin.jailer.faults import JailerError
from firkin.jailer.request import Request

MOUNTS = """\
tmpfs /sys/fs/cgroup tmpfs rw,mode=755 0 0
cgroup /c/cpu cgroup rw,relatime,cpu,cpuacct 0 0
cgroup /c/cpuset cgroup rw,relatime,cpuset 0 0
cgroup2 /c/unified cgroup2 rw,nsdelegate 0 0
"""
FOUND = Hierarchies({"cpu": "/c/cpu", "cpuset": "/c/cpuset"}, "/c/unified", frozenset({"cpu", "io"}))


def request(version: int, *given: str, parent: str = "vms") -> Request:
    return Request("id", "/b/x", "/j", 1, 2, cgroup_version=version, parent_cgroup=parent, cgroups=given)


def test_mounts_of_both_versions_are_found() -> None:
    found = cgroups.find_hierarchies(MOUNTS, {"/c/unified/cgroup.controllers": "cpu io\n"}.__getitem__)
    assert found.v1["cpu"] == found.v1["cpuacct"] == "/c/cpu"
    assert found.v1["cpuset"] == "/c/cpuset"
    assert found.v2 == "/c/unified"
    assert found.v2_controllers == {"cpu", "io"}


def test_nothing_is_done_unasked() -> None:
    assert cgroups.plan(request(1), Hierarchies({})) == ()


def test_version_1_has_a_group_in_every_hierarchy_and_joins_last() -> None:
    wanted = request(1, "cpuset.cpus=0", "cpu.shares=2", "cpuset.mems=1", parent="a/b")
    assert cgroups.plan(wanted, FOUND) == (
        MakeGroup("/c/cpuset/a/b/id"),
        Inherit("/c/cpuset/a/b/id", "cpuset.cpus", 2),
        Write("/c/cpuset/a/b/id/cpuset.cpus", "0"),
        MakeGroup("/c/cpu/a/b/id"),
        Inherit("/c/cpu/a/b/id", "cpu.shares", 2),
        Write("/c/cpu/a/b/id/cpu.shares", "2"),
        Inherit("/c/cpuset/a/b/id", "cpuset.mems", 2),
        Write("/c/cpuset/a/b/id/cpuset.mems", "1"),
        Join("/c/cpuset/a/b/id/tasks"),
        Join("/c/cpu/a/b/id/tasks"),
    )


def test_version_2_opens_each_controller_from_the_top_down() -> None:
    assert cgroups.plan(request(2, "cpu.max=1 2", "io.weight=5", parent="a/b"), FOUND) == (
        MakeGroup("/c/unified/a/b/id"),
        Write("/c/unified/cgroup.subtree_control", "+cpu"),
        Write("/c/unified/a/cgroup.subtree_control", "+cpu"),
        Write("/c/unified/a/b/cgroup.subtree_control", "+cpu"),
        Write("/c/unified/a/b/id/cpu.max", "1 2"),
        Write("/c/unified/cgroup.subtree_control", "+io"),
        Write("/c/unified/a/cgroup.subtree_control", "+io"),
        Write("/c/unified/a/b/cgroup.subtree_control", "+io"),
        Write("/c/unified/a/b/id/io.weight", "5"),
        Join("/c/unified/a/b/id/cgroup.procs"),
    )


def test_version_2_without_values_goes_into_the_parent() -> None:
    assert cgroups.plan(request(2), FOUND) == (Move("/c/unified/vms"),)


@pytest.mark.parametrize(
    ("version", "given", "text", "debug"),
    [
        (1, "cpu.shares", "Invalid format for cgroups: cpu.shares", 'CgroupFormat("cpu.shares")'),
        (1, "cpu.shares=", "Invalid format for cgroups: cpu.shares=", None),
        (1, "cpu.a=1=2", "Invalid format for cgroups: cpu.a=1=2", None),
        (1, "../cpu.shares=1", "Cgroup invalid file: ../cpu.shares=1", 'CgroupInvalidFile("../cpu.shares=1")'),
        (1, "/cpu.shares=1", "Cgroup invalid file: /cpu.shares=1", None),
        (1, "cpu=1", "Cgroup invalid file: cpu", 'CgroupInvalidFile("cpu")'),
        (1, "rdma.max=1", "Controller rdma is unavailable", 'CgroupControllerUnavailable("rdma")'),
        (2, "rdma.max=1", "Controller rdma is unavailable", 'CgroupControllerUnavailable("rdma")'),
        (3, "cpu.max=1", "3 is an invalid cgroup version specifier", 'CgroupInvalidVersion("3")'),
    ],
)
def test_each_mistake_has_upstreams_words(version: int, given: str, text: str, debug: str | None) -> None:
    with pytest.raises(JailerError) as caught:
        cgroups.plan(request(version, given), FOUND)
    assert str(caught.value) == text
    assert debug is None or caught.value.debug == debug


@pytest.mark.parametrize("version", [1, 2])
def test_a_host_without_that_version(version: int) -> None:
    with pytest.raises(JailerError, match="Hierarchy not found: No hierarchy found for this cgroup version"):
        cgroups.plan(request(version, "cpu.x=1"), Hierarchies({}))


def tree(folder: Path, **values: str) -> None:
    for path, text in values.items():
        file = folder / path.replace("__", "/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)


def test_an_empty_parent_is_filled_from_above(tmp_path: Path) -> None:
    tree(tmp_path, f="0-3\n", a__f="\n", a__b__f="\n", a__b__id__f="\n")
    cgroups.carry_out((Inherit(f"{tmp_path}/a/b/id", "f", 2),))
    assert [(tmp_path / path / "f").read_text() for path in ("a", "a/b", "a/b/id")] == ["0-3\n"] * 3


def test_emptiness_to_the_top_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, f="\n", a__f="\n", a__id__f="\n")
    with pytest.raises(JailerError) as caught:
        cgroups.carry_out((Inherit(f"{tmp_path}/a/id", "f", 1),))
    assert str(caught.value) == f"Failed to inherit cgroups configurations from file f in path {tmp_path}/a/id"


def test_steps_reach_the_files(tmp_path: Path) -> None:
    group = f"{tmp_path}/vms/id"
    cgroups.carry_out((MakeGroup(group), MakeGroup(group), Write(f"{group}/cpu.max", "1 2"), Join(f"{group}/tasks")))
    assert (tmp_path / "vms/id/cpu.max").read_text() == "1 2\n"
    assert (tmp_path / "vms/id/tasks").read_text() == f"{os.getpid()}\n"


def test_a_parent_that_is_not_there_is_no_error(tmp_path: Path) -> None:
    cgroups.carry_out((Move(f"{tmp_path}/none"),))
    assert list(tmp_path.iterdir()) == []
    cgroups.carry_out((Move(str(tmp_path)),))
    assert (tmp_path / "cgroup.procs").read_text() == str(os.getpid())


def test_a_failing_write_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(JailerError) as caught:
        cgroups.carry_out((Write(f"{tmp_path}/no/f", "1"),))
    assert str(caught.value) == f"Failed to write to {tmp_path}/no/f: No such file or directory (os error 2)"
