from __future__ import annotations

from pathlib import Path

import pytest

from firkin.jailer import args, request
from firkin.jailer.faults import JailerError
from firkin.jailer.request import Limits, Request

NOT_FOUND = 'Os { code: 2, kind: NotFound, message: "No such file or directory" }'


def read(tmp_path: Path, **given: str | tuple[str, ...] | None) -> Request:
    """A good command line, with some arguments replaced, or left out by None."""
    program = tmp_path / "bin" / "firkin-vmm"
    program.parent.mkdir(exist_ok=True)
    program.touch()
    (tmp_path / "jails").mkdir(exist_ok=True)
    good: dict[str, str | tuple[str, ...] | None] = {
        "id": "a-1",
        "exec-file": str(program),
        "uid": "100",
        "gid": "200",
        "chroot-base-dir": str(tmp_path / "jails"),
    }
    for name, value in given.items():
        good[name.replace("_", "-")] = value
    values = {name: (value,) if isinstance(value, str) else value for name, value in good.items() if value is not None}
    return request.read(args.Arguments(values))


def test_a_whole_request(tmp_path: Path) -> None:
    wanted = read(tmp_path, netns="/n", resource_limit=("no-file=10", "fsize=20", "no-file=30"))
    assert wanted == Request(
        id="a-1",
        exec_file=f"{tmp_path}/bin/firkin-vmm",
        base=f"{tmp_path}/jails",
        uid=100,
        gid=200,
        netns="/n",
        parent_cgroup="firkin-vmm",
        limits=Limits(no_file=30, fsize=20),
    )
    assert wanted.root == f"{tmp_path}/jails/firkin-vmm/a-1/root"


def test_paths_are_canonical(tmp_path: Path) -> None:
    read(tmp_path)
    (tmp_path / "firecracker").symlink_to("bin/firkin-vmm")
    assert read(tmp_path, exec_file=f"{tmp_path}/firecracker").exec_name == "firkin-vmm"


def test_the_default_limit_is_2048_files() -> None:
    assert Limits() == (2048, None)


@pytest.mark.parametrize(
    ("given", "text", "debug"),
    [
        (
            {"id": ""},
            "Invalid instance ID: Invalid len (0);  the length must be between 1 and 64",
            "InvalidInstanceId(InvalidLen(0, 1, 64))",
        ),
        (
            {"id": "a" * 65},
            "Invalid instance ID: Invalid len (65);  the length must be between 1 and 64",
            "InvalidInstanceId(InvalidLen(65, 1, 64))",
        ),
        (
            {"id": "../x"},
            "Invalid instance ID: Invalid char (.) at position 0",
            "InvalidInstanceId(InvalidChar('.', 0))",
        ),
        ({"uid": "root"}, "Invalid uid: root", 'Uid("root")'),
        ({"uid": "-1"}, "Invalid uid: -1", 'Uid("-1")'),
        ({"gid": "4294967296"}, "Invalid gid: 4294967296", 'Gid("4294967296")'),
        (
            {"exec_file": "/nonexistent/firecracker"},
            "Failed to canonicalize path /nonexistent/firecracker: No such file or directory (os error 2)",
            f'Canonicalize("/nonexistent/firecracker", {NOT_FOUND})',
        ),
        ({"exec_file": "/usr"}, "/usr is not a file", 'NotAFile("/usr")'),
        (
            {"chroot_base_dir": "/nonexistent"},
            "Failed to canonicalize path /nonexistent: No such file or directory (os error 2)",
            None,
        ),
        ({"chroot_base_dir": "/dev/null"}, "/dev/null is not a directory", 'NotADirectory("/dev/null")'),
        (
            {"parent_cgroup": "/abs"},
            "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            "CgroupInvalidParentPath",
        ),
        (
            {"parent_cgroup": "a/../.."},
            "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            None,
        ),
        ({"cgroup_version": "one"}, "one is an invalid cgroup version specifier", 'CgroupInvalidVersion("one")'),
        ({"resource_limit": "fsize"}, "Invalid format for resources limits: fsize", 'ResLimitFormat("fsize")'),
        ({"resource_limit": "cpu=1"}, "Invalid resource argument: cpu", 'ResLimitArgument("cpu")'),
        (
            {"resource_limit": "fsize=x"},
            "Invalid limit value for resource: x: invalid digit found in string",
            'ResLimitValue("x", "invalid digit found in string")',
        ),
        (
            {"resource_limit": "fsize="},
            "Invalid limit value for resource: : cannot parse integer from empty string",
            None,
        ),
        (
            {"resource_limit": "fsize=" + "9" * 5000},
            f"Invalid limit value for resource: {'9' * 5000}: number too large to fit in target type",
            None,
        ),
    ],
)
def test_each_bad_value_has_upstreams_words(
    tmp_path: Path, given: dict[str, str], text: str, debug: str | None
) -> None:
    with pytest.raises(JailerError) as caught:
        read(tmp_path, **given)
    assert str(caught.value) == text
    assert debug is None or caught.value.debug == debug


def test_numbers_as_rust_reads_them(tmp_path: Path) -> None:
    assert read(tmp_path, uid="+007", gid="4294967295")[3:5] == (7, 4294967295)
