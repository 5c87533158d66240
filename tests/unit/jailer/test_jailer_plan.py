from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firkin.host.libc import MS_NODEV, MS_NOEXEC, MS_NOSUID, MS_RDONLY
from firkin.jailer import plan, runtime
from firkin.jailer.cgroups import Move
from firkin.jailer.faults import JailerError
from firkin.jailer.plan import Jail, Mount, Node
from firkin.jailer.request import Request
from firkin.jailer.runtime import Runtime

REQUEST = Request("vm-1", "/opt/v/bin/firkin-vmm", "/srv/jailer", 1, 2, extra=("--config-file", "/c.json"))
RESTRICTED = MS_RDONLY | MS_NOSUID | MS_NODEV
DEVICES = (
    Node("/dev/net/tun", 10, 200),
    Node("/dev/kvm", 10, 232),
    Node("/dev/urandom", 1, 9, optional=True),
)


def decide(found: Runtime, *, misc: str = "", release: str = "6.1.0", request: Request = REQUEST) -> Jail:
    return plan.plan(request, found, (Move("/g"),), misc=misc, release=release)


def test_an_executable_is_jailed_as_upstream_does_it() -> None:
    assert decide(Runtime()) == Jail(REQUEST, (Move("/g"),), mounts=(), nodes=DEVICES, proc=None)


def test_a_script_sees_its_runtime_read_only() -> None:
    jail = decide(Runtime(("/opt/v", "/usr"), ("/etc/ld.so.cache",)))
    assert jail.mounts == (
        Mount("/opt/v", RESTRICTED),
        Mount("/usr", RESTRICTED),
        Mount("/etc/ld.so.cache", RESTRICTED | MS_NOEXEC, is_folder=False),
        Mount("/dev/null", MS_RDONLY | MS_NOSUID | MS_NOEXEC, is_folder=False),
    )
    assert jail.proc == "hidepid=2"


@pytest.mark.parametrize(
    ("release", "options"),
    [
        ("5.7.19", ""),
        ("5.8.0", "hidepid=2"),
        ("5.10.0-30-amd64", "hidepid=2"),
        ("4.19.0", ""),
        ("6.1-rc2", "hidepid=2"),
    ],
)
def test_old_kernels_would_hide_processes_on_the_whole_host(release: str, options: str) -> None:
    assert decide(Runtime(("/usr",)), release=release).proc == options


def test_userfaultfd_has_the_number_of_this_boot() -> None:
    misc = "234 btrfs-control\n 53 userfaultfd\n200 tun\n"
    assert decide(Runtime(), misc=misc).nodes == (*DEVICES, Node("/dev/userfaultfd", 10, 53))


@pytest.mark.parametrize("base", ["/usr", "/usr/local/jails"])
def test_jails_are_not_put_where_other_jails_look(base: str) -> None:
    with pytest.raises(JailerError, match=f"{base} is within /usr"):
        decide(Runtime(("/usr",)), request=REQUEST._replace(base=base))
    assert decide(Runtime(("/usr",)), request=REQUEST._replace(base="/usrlocal"))


def test_the_programs_command_line() -> None:
    words = plan.command(REQUEST, start_us=5, cpu_us=6, parent_cpu_us=7)
    assert words == [
        *("/firkin-vmm", "--id", "vm-1", "--start-time-us", "5", "--start-time-cpu-us", "6"),
        *("--parent-cpu-time-us", "7", "--config-file", "/c.json"),
    ]


@pytest.mark.parametrize(
    ("head", "programs"),
    [
        (b"\x7fELF\x02\x01", ()),
        (b"", ()),
        (b"#!/opt/v/bin/python\nimport sys\n", ("/opt/v/bin/python",)),
        (b"#! /opt/v/bin/python -I\n", ("/opt/v/bin/python",)),
        (b"#!/usr/bin/env python3\n", ("/usr/bin/env", "python3")),
        (b"#!/usr/bin/env -S python3\n", ("/usr/bin/env", "python3")),
        (b"#!/bin/sh\nexec x\n", ("/bin/sh",)),
        (b"#!/bin/sh\n'''exec' /long/bin/python \"$0\" \"$@\"\n' '''\n", ("/bin/sh", "/long/bin/python")),
        (b"#!/bin/sh\n'''exec' \"/a b/bin/python\" \"$0\" \"$@\"\n' '''\n", ("/bin/sh", "/a b/bin/python")),
    ],
)
def test_who_runs_a_script(head: bytes, programs: tuple[str, ...]) -> None:
    assert runtime.interpreters(head) == programs


@given(st.binary())
def test_no_first_line_is_too_odd_to_read(rest: bytes) -> None:
    for program in runtime.interpreters(b"#!" + rest):
        assert not {"\n", "\0"} & set(program)


def test_what_a_mount_shows_already_is_not_mounted_again() -> None:
    devices = {"/usr/local": 2}
    shown = runtime.outermost(
        ["/usr/local", "/opt/v", "/usr", "/usr/lib/x", "/usrx"], lambda path: devices.get(path, 1)
    )
    assert shown == ("/opt/v", "/usr", "/usr/local", "/usrx")


def test_every_link_on_the_way_counts(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "python3.11").touch()
    (tmp_path / "python3").symlink_to("real/../real/python3.11")
    (tmp_path / "python").symlink_to(tmp_path / "python3")
    assert runtime.links(f"{tmp_path}/python") == [
        f"{tmp_path}/{name}" for name in ("python", "python3", "real/python3.11")
    ]


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("a")
    assert len(runtime.links(f"{tmp_path}/a")) < 50


@pytest.mark.parametrize("interpreter", [sys.executable, f"{sys.prefix}/bin/python3"])
def test_the_runtime_of_a_console_script_covers_all_that_it_imports(tmp_path: Path, interpreter: str) -> None:
    """By ourselves, and by asking: the second path is not how this process was started."""
    import msgspec

    import firkin

    script = tmp_path / "firkin-vmm"
    script.write_text(f"#!{interpreter}\n")
    found = runtime.find(str(script))
    needed = [interpreter, os.path.realpath(interpreter), os.__file__, str(firkin.__file__), str(msgspec.__file__)]
    for path in (*needed, "/usr/bin/env"):
        assert any(path.startswith(f"{folder}/") for folder in found.folders), path
    assert "/etc" not in found.folders


def test_a_link_shows_its_folder_and_not_what_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "home" / "bin").mkdir(parents=True)
    (tmp_path / "home" / "bin" / "shell").symlink_to("/bin/sh")
    script = tmp_path / "script"
    script.write_text(f"#!{tmp_path}/home/bin/shell\n")
    folders = runtime.find(str(script)).folders
    assert f"{tmp_path}/home/bin" in folders
    assert set(folders) <= {*runtime.SYSTEM, "/bin", f"{tmp_path}/home/bin"}


def test_an_interpreter_without_firkin_is_an_error(tmp_path: Path) -> None:
    fake = tmp_path / "python"
    fake.write_text("#!/bin/sh\nexit 3\n")
    fake.chmod(0o755)
    script = tmp_path / "script"
    script.write_text(f"#!{fake}\n")
    with pytest.raises(JailerError, match=f"Failed to find what {fake} needs: .*exited with 3"):
        runtime.find(str(script))
