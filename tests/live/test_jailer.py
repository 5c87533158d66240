"""The jailer with real jails: firkin-vmm boots in one, and from inside nothing of the host is there to be seen."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path

import pytest
import vsock_machine
from engine_rig import BOOT_ARGS, Api, build_initrd, gone, need_kernel
from jail_rig import GID, UID, VMM, Jail, base_folder, boot, children, jailed, limits, run_jailer, status
from net_world import namespace, unique

from firkin.host import netns, tun
from firkin.host.wait import wait_until

pytestmark = [pytest.mark.live, pytest.mark.skipif(os.geteuid() != 0, reason="only root can jail")]

UPSTREAMS = {"dev", "firkin-vmm", "firkin-vmm.pid", "run"}
MIB = 1 << 20


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_kernel()
    return build_initrd(tmp_path_factory.mktemp("initrd"))


@pytest.fixture
def base() -> Iterator[Path]:
    with base_folder() as path:
        yield path


@pytest.fixture
def jail(base: Path, initrd: Path) -> Jail:
    """With a kernel and an initrd inside, as a client puts them there."""
    jail = Jail(base)
    jail.put(need_kernel(), "vmlinux")
    jail.put(initrd, "initrd")
    return jail


def mounts() -> set[str]:
    """The host's mounts, but for the namespaces that other tests come and go with."""
    return {line for line in Path("/proc/self/mountinfo").read_text().splitlines() if " - nsfs " not in line}


def test_a_guest_boots_by_paths_of_the_jail(jail: Jail) -> None:
    before = mounts()
    vsock = {"/vsock": {"guest_cid": 3, "uds_path": "/v.sock"}}
    with jailed(jail) as vmm, closing(boot(jail, "/vmlinux", "/initrd", **vsock)):
        vmm.expect("READY")
        assert jail.pid == vmm.process.pid
        engine, qemu = jail.pid, vmm.qemu()
        for pid in (engine, qemu):
            now = status(pid)
            assert (now["Uid"].split(), now["Gid"].split()) == ([str(UID)] * 4, [str(GID)] * 4)
            assert not now["Groups"].strip()
            assert int(now["CapEff"], 16) == int(now["CapPrm"], 16) == 0
        assert (status(qemu)["NoNewPrivs"], status(qemu)["Seccomp"]) == ("1", "2")
        assert (jail.root / "v.sock").is_socket()
        assert mounts() == before
        vmm.ask("hello", "said:hello")
        vmm.type("reboot")
        assert vmm.wait() == 0
        assert gone(qemu)
    assert mounts() == before
    assert {path.name for path in jail.root.iterdir()} >= UPSTREAMS  # cleaning up is the caller's business


def test_a_config_file_of_the_jail(jail: Jail) -> None:
    config = {"boot-source": {"kernel_image_path": "vmlinux", "initrd_path": "initrd", "boot_args": BOOT_ARGS}}
    (jail.root / "config.json").write_text(json.dumps({**config, "drives": []}))
    program = ("--no-api", "--config-file", "config.json", "--log-path", "run/log", "--level", "Debug")
    with jailed(jail, program=program) as vmm:
        vmm.expect("READY")
        vmm.type("reboot")
        assert vmm.wait() == 0
    assert "Firecracker exiting successfully" in (jail.root / "run/log").read_text()
    assert not jail.socket.exists()


def test_vsock_works_in_a_jail(jail: Jail, tmp_path: Path) -> None:
    """It takes another process's memory and descriptors: nothing that a user needs to be root for."""
    jail.put(vsock_machine.build_initrd(tmp_path), "vsock-initrd")
    vsock = {"/vsock": {"guest_cid": 3, "uds_path": "/v.sock"}}
    with jailed(jail), closing(boot(jail, "/vmlinux", "/vsock-initrd", **vsock)):
        assert wait_until(lambda: _echoes(jail.root / "v.sock"), timeout_s=30)


def _echoes(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(10)
        client.connect(str(path))
        try:
            client.sendall(b"CONNECT %d\n" % vsock_machine.ECHO)
            if not client.recv(32).startswith(b"OK "):
                return False
        except (BrokenPipeError, ConnectionResetError):
            return False  # nobody listens in the guest yet
        client.sendall(b"ping")
        return client.recv(4) == b"ping"


def test_qemu_dies_with_a_jailed_engine(jail: Jail) -> None:
    with jailed(jail) as vmm, closing(boot(jail, "/vmlinux", "/initrd")):
        vmm.expect("READY")
        qemu = vmm.qemu()
        os.kill(jail.pid, signal.SIGKILL)
        assert gone(qemu)


def test_the_layout_is_upstreams(jail: Jail) -> None:
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        for name in ("", "dev", "dev/net", "run"):
            assert _facts(jail.root / name) == (stat.S_IFDIR | 0o700, UID, GID)
        for name in ("dev/net/tun", "dev/kvm", "dev/urandom"):
            assert _facts(jail.root / name) == (stat.S_IFCHR | 0o600, UID, GID)
            assert (jail.root / name).stat().st_rdev == Path("/", name).stat().st_rdev
        assert (jail.root / "dev/userfaultfd").exists() == Path("/dev/userfaultfd").exists()
        assert _facts(jail.root / "firkin-vmm") == (stat.S_IFREG | 0o755, UID, GID)
        assert _facts(jail.socket)[1:] == (UID, GID)
        assert Path(f"/proc/{jail.pid}/environ").read_bytes() == b""


def _facts(path: Path) -> tuple[int, int, int]:
    found = path.lstat()
    return found.st_mode, found.st_uid, found.st_gid


def test_only_the_runtime_of_the_host_is_in_sight(jail: Jail) -> None:
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        inside = Path(f"/proc/{jail.pid}/root")
        runtime = {Path(path).parts[1] for path in (VMM, os.path.realpath(VMM.parent / "python"), __file__)}
        system = {"usr", "lib", "lib64", "etc", "proc", "vmlinux", "initrd"}
        assert {path.name for path in inside.iterdir()} <= UPSTREAMS | system | runtime
        assert [path.name for path in (inside / "etc").iterdir()] == ["ld.so.cache"]
        # The checkout may lie in one of the first three: then nothing but the way to it is there.
        hidden = {"home", "var", "tmp"} - runtime
        for path in (*hidden, "etc/shadow", "sys", "root/.bashrc", str(Path(__file__)).lstrip("/")):
            assert not (inside / path).exists(), path
        lines = [line.split() for line in Path(f"/proc/{jail.pid}/mountinfo").read_text().splitlines()]
        for fields in lines:
            place, options = fields[4], fields[5].split(",")
            if place not in ("/", "/proc"):
                assert {"ro", "nosuid"} <= set(options), place
            assert "nodev" in options or place in ("/", "/dev/null"), place


def test_what_the_host_mounts_later_stays_outside(jail: Jail) -> None:
    # The shell stays behind and keeps alive the namespace that the jail's mounts come from.
    shared = ("unshare", "--mount", "--propagation", "shared", "sh", "-c", '"$@"; exit', "sh")
    with jailed(jail, prefix=shared) as shell:
        shell.expect("API server started")
        lines = [line.split() for line in Path(f"/proc/{jail.pid}/mountinfo").read_text().splitlines()]
        tied = {fields[4] for fields in lines if fields[6].startswith(("shared:", "master:"))}
        assert tied == {"/"}


def test_a_strict_umask_does_not_lock_the_engine_out(jail: Jail) -> None:
    with jailed(jail, umask=0o077) as vmm:
        vmm.expect("API server started")


def test_other_processes_are_out_of_sight(jail: Jail) -> None:
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        seen = _as_jailed(jail.pid, "import os; print(sorted(int(n) for n in os.listdir('/proc') if n.isdigit()))")
        assert str(os.getpid()) not in seen
        assert str(jail.pid) in seen


def test_from_outside_the_folders_of_the_runtime_are_empty(jail: Jail) -> None:
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        files = [path for path in jail.root.rglob("*") if path.is_file() and not path.is_symlink()]
        assert {path.name for path in files if path.stat().st_size} == {
            *("firkin-vmm", "firkin-vmm.pid", "vmlinux", "initrd")
        }


def _as_jailed(pid: int, code: str) -> str:
    """Run Python where a jailed process is, as its user."""
    enter = ["nsenter", "--target", str(pid), "--mount", "--root", "--wd", "--setuid", str(UID), "--setgid", str(GID)]
    return subprocess.run(
        [*enter, VMM.parent / "python", "-I", "-c", code], check=True, capture_output=True, text=True
    ).stdout


def test_a_tap_in_the_given_namespace(jail: Jail) -> None:
    with namespace() as name:
        netns.run_in(name, lambda: tun.create("tap0", owner_uid=UID))
        nic = {
            "/network-interfaces/eth0": {"iface_id": "eth0", "guest_mac": "06:00:0a:00:00:02", "host_dev_name": "tap0"}
        }
        with jailed(jail, "--netns", f"/run/netns/{name}") as vmm, closing(boot(jail, "/vmlinux", "/initrd", **nic)):
            vmm.expect("READY")
            vmm.ask("cat /sys/class/net/eth0/address", "=<06:00:0a:00:00:02>")
            theirs, ours = Path(f"/proc/{jail.pid}/ns/net").readlink(), Path("/proc/self/ns/net").readlink()
            assert theirs != ours
            assert theirs.name == f"net:[{Path('/run/netns', name).stat().st_ino}]"


def test_a_tap_of_somebody_else_stays_closed(jail: Jail) -> None:
    with namespace() as name:
        netns.run_in(name, lambda: tun.create("tap0", owner_uid=UID + 7))
        with jailed(jail, "--netns", f"/run/netns/{name}") as vmm, closing(Api(jail.socket)) as api:
            vmm.expect("API server started")
            fault = api.fault("PUT", "/network-interfaces/a", {"iface_id": "a", "host_dev_name": "tap0"})
            assert "Operation not permitted (os error 1)" in fault


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/nonexistent", "Failed to open file /nonexistent: No such file or directory (os error 2)\n"),
        ("/dev/null", "Failed to join network namespace: netns: Invalid argument (os error 22)\n"),
    ],
)
def test_a_namespace_that_is_none(base: Path, path: str, text: str) -> None:
    done = run_jailer(*Jail(base).args("--netns", path))
    assert (done.returncode, done.stderr.startswith(text)) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_pid_namespace_of_its_own(jail: Jail, number: int) -> None:
    with jailed(jail, "--new-pid-ns") as jailer, closing(boot(jail, "/vmlinux", "/initrd")):
        assert jailer.wait() == 0
        jailer.expect("READY")
        assert status(jail.pid)["NSpid"].split() == [str(jail.pid), "1"]
        (qemu,) = children(jail.pid)
        seen = [path.name for path in Path(f"/proc/{jail.pid}/root/proc").iterdir() if path.name.isdigit()]
        assert sorted(seen, key=int) == ["1", status(qemu)["NSpid"].split()[-1]]
        os.kill(jail.pid, number)
        assert gone(jail.pid)
        assert gone(qemu)


@pytest.mark.parametrize("more", [(), ("--new-pid-ns",)])
def test_a_daemon(jail: Jail, more: tuple[str, ...]) -> None:
    with jailed(jail, "--daemonize", *more) as jailer, closing(boot(jail, "/vmlinux", "/initrd")) as api:
        assert jailer.wait() == 0
        assert api.call("GET", "/")[1]["state"] == "Running"
        pid = jail.pid
        assert os.getsid(pid) not in (pid, os.getsid(0), jailer.process.pid)
        assert {Path(f"/proc/{pid}/fd/{fd}").readlink() for fd in (0, 1, 2)} == {Path("/dev/null")}
        (qemu,) = children(pid)
        os.kill(pid, signal.SIGKILL)
        assert gone(pid)
        assert gone(qemu)


def test_limits(jail: Jail) -> None:
    flags = ("--resource-limit", f"fsize={64 * MIB}", "--resource-limit", "no-file=1024")
    with jailed(jail, *flags) as vmm, closing(boot(jail, "/vmlinux", "/initrd")):
        vmm.expect("READY")
        for pid in (jail.pid, vmm.qemu()):
            assert limits(pid)["Max open files"] == ["1024"] * 2
            assert limits(pid)["Max file size"] == [str(64 * MIB)] * 2


def test_limits_by_default(jail: Jail) -> None:
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        assert limits(jail.pid)["Max open files"] == ["2048"] * 2
        assert limits(jail.pid)["Max file size"] == ["unlimited"] * 2


def test_too_few_files_is_an_error_with_upstreams_words(base: Path) -> None:
    done = run_jailer(*Jail(base).args("--resource-limit", "no-file=3"))
    assert done.returncode == 1
    assert "No file descriptors available (os error 24)" in done.stderr


def test_root_may_be_jailed_too(jail: Jail) -> None:
    with jailed(jail, uid=0) as vmm, closing(boot(jail, "/vmlinux", "/initrd")):
        vmm.expect("READY")
        assert int(status(vmm.qemu())["CapEff"], 16) == 0


@contextmanager
def cgroup(*folders: str) -> Iterator[str]:
    """A parent for a jail's cgroups; it and what was made in it are removed."""
    name = f"fktest-{unique()}"
    made = [Path(folder) / name for folder in folders]
    for path in made:
        try:
            path.mkdir()
        except OSError as error:
            pytest.skip(f"no cgroup can be made here: {error}")
    try:
        yield name
    finally:
        for path in made:
            for group in sorted((path, *path.rglob("*")), reverse=True):
                if group.is_dir():
                    assert wait_until(partial(_removed, group), timeout_s=10)


def _removed(group: Path) -> bool:
    """A process that was killed is in its group until somebody has reaped it."""
    try:
        group.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def mounted(kind: str, controller: str) -> str:
    for line in Path("/proc/mounts").read_text().splitlines():
        _, folder, type_, options, *_ = line.split()
        if type_ == kind and (kind == "cgroup2" or controller in options.split(",")):
            return folder
    pytest.skip(f"{controller} is not mounted as {kind}")


def test_cgroups_of_version_1(jail: Jail) -> None:
    cpuset, cpu = mounted("cgroup", "cpuset"), mounted("cgroup", "cpu")
    flags = ("--cgroup", "cpuset.cpus=0", "--cgroup", "cpuset.mems=0", "--cgroup", "cpu.shares=512")
    with (
        cgroup(cpuset, cpu) as parent,
        jailed(jail, "--parent-cgroup", parent, *flags) as vmm,
        closing(boot(jail, "/vmlinux", "/initrd")),
    ):
        vmm.expect("READY")
        qemu = vmm.qemu()
        for pid in (jail.pid, qemu):
            lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
            places = {line.split(":")[1]: line.split(":")[2] for line in lines}
            assert places["cpuset"] == places["cpu"] == f"/{parent}/{jail.name}"
        group = Path(parent) / jail.name
        assert (cpuset / group / "cpuset.cpus").read_text() == "0\n"
        assert (cpuset / group / "cpuset.mems").read_text() == "0\n"
        assert (cpu / group / "cpu.shares").read_text() == "512\n"
        vmm.process.kill()
        assert vmm.process.wait(10)
        assert gone(qemu)


def test_without_values_a_version_2_parent_is_joined(jail: Jail) -> None:
    folder = mounted("cgroup2", "")
    with cgroup(folder) as parent, jailed(jail, "--cgroup-version", "2", "--parent-cgroup", parent) as vmm:
        vmm.expect("API server started")
        assert f"0::/{parent}" in Path(f"/proc/{jail.pid}/cgroup").read_text().splitlines()
        vmm.process.kill()
        assert gone(jail.pid)


def test_values_of_version_2(jail: Jail) -> None:
    folder = Path(mounted("cgroup2", ""))
    if "pids" not in (folder / "cgroup.controllers").read_text().split():
        done = run_jailer(*jail.args("--cgroup-version", "2", "--cgroup", "pids.max=100"))
        assert done.stderr.splitlines()[0] == "Controller pids is unavailable"
        return
    flags = ("--cgroup-version", "2", "--cgroup", "pids.max=100")
    with cgroup(str(folder)) as parent, jailed(jail, *flags, "--parent-cgroup", parent) as vmm:
        vmm.expect("API server started")
        assert f"0::/{parent}/{jail.name}" in Path(f"/proc/{jail.pid}/cgroup").read_text().splitlines()
        assert (folder / parent / jail.name / "pids.max").read_text() == "100\n"
        vmm.process.kill()
        assert gone(jail.pid)


def test_an_id_is_used_once(base: Path) -> None:
    jail = Jail(base)
    with jailed(jail) as vmm:
        vmm.expect("API server started")
        again = run_jailer(*jail.args())
        assert vmm.process.poll() is None
    for done in (again, run_jailer(*jail.args())):
        assert done.returncode == 1
        assert done.stderr == (
            "Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)\n"
            'Error: MknodDev(Os { code: 17, kind: AlreadyExists, message: "File exists" }, "/dev/net/tun")\n'
        )


def test_links_at_the_programs_place_are_refused(base: Path) -> None:
    victim = base / "victim"
    victim.write_text("precious")
    for name, lay in (("sym", Path.symlink_to), ("hard", Path.hardlink_to)):
        jail = Jail(base, name)
        jail.root.mkdir(parents=True)
        lay(jail.root / "firkin-vmm", victim)
        done = run_jailer(*jail.args())
        place = jail.root / "firkin-vmm"
        assert done.stderr.startswith(
            f"Failed to open {place}: " if name == "sym" else f"Detected hard link at: {place}\n"
        )
        assert victim.read_text() == "precious"


@pytest.mark.parametrize("name", ["usr", "etc", "dev", "proc"])
def test_a_link_where_the_runtime_goes_leads_nowhere(base: Path, name: str) -> None:
    outside = base / "outside"
    outside.mkdir()
    jail = Jail(base)
    jail.root.mkdir(parents=True)
    (jail.root / name).symlink_to(outside)
    done = run_jailer(*jail.args())
    assert done.returncode == 1
    assert done.stderr.startswith(f"Failed to create directory /{name}")
    assert not list(outside.iterdir())


PEEK = r"""
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(int argc, char **argv, char **envp) {
    char cwd[256];
    for (int i = 0; i < argc; i++) printf("arg %s\n", argv[i]);
    for (; *envp; envp++) printf("env %s\n", *envp);
    for (int fd = 3; fd < 2048; fd++) if (fcntl(fd, F_GETFD) >= 0) printf("fd %d\n", fd);
    printf("cwd %s\nuser %d:%d\ngroups %d\n", getcwd(cwd, sizeof cwd), getuid(), getgid(), getgroups(0, 0));
    DIR *root = opendir("/");
    for (struct dirent *entry; (entry = readdir(root));)
        if (entry->d_name[0] != '.') printf("file %s\n", entry->d_name);
    return 7;
}
"""


def test_a_static_executable_gets_upstreams_jail_and_nothing_else(base: Path, tmp_path: Path) -> None:
    (tmp_path / "peek.c").write_text(PEEK)
    subprocess.run(["musl-gcc", "-static", "-Os", "-o", tmp_path / "firecracker", tmp_path / "peek.c"], check=True)
    jail = Jail(base, exec_file=tmp_path / "firecracker")
    done = run_jailer(*jail.args(program=("--config-file", "/c.json")))
    assert done.returncode == 7
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        said.setdefault(line.split(" ")[0], []).append(line.partition(" ")[2])
    words = said["arg"]
    assert words[:4] == ["/firecracker", "--id", "one", "--start-time-us"]
    assert [*words[5::2]][:2] == ["--start-time-cpu-us", "--parent-cpu-time-us"]
    assert all(word.isdigit() for word in (words[4], words[6], words[8]))
    assert words[9:] == ["--config-file", "/c.json"]
    assert ("env" in said, "fd" in said) == (False, False)
    assert (said["cwd"], said["user"], said["groups"]) == (["/"], [f"{UID}:{GID}"], ["0"])
    assert sorted(said["file"]) == ["dev", "firecracker", "firecracker.pid", "run"]


def test_a_script_with_a_shell_in_front(base: Path, tmp_path: Path) -> None:
    """What installers write where the interpreter's path has a space; named so that a client may look for it."""
    script = tmp_path / "firecracker"
    body = VMM.read_text().partition("\n")[2]
    script.write_text(f"#!/bin/sh\n'''exec' \"{VMM.parent}/python\" \"$0\" \"$@\"\n' '''\n{body}")
    script.chmod(0o755)
    done = run_jailer(*Jail(base, exec_file=script).args(program=("--version",)))
    assert done.stdout.startswith("Firecracker v1.16.1\n")
    assert done.returncode == 0


def test_jails_may_not_be_where_scripts_look(tmp_path: Path) -> None:
    done = run_jailer(*Jail(VMM.parent).args())
    assert done.returncode == 1
    assert f"{VMM.parent} is within {VMM.parent.parent}" in done.stderr


def test_version_and_help() -> None:
    assert run_jailer("--version").stdout == "Jailer v1.16.1\n\n"
    shown = run_jailer("--id", "x", "--help")
    assert (shown.returncode, shown.stdout.startswith("Jailer v1.16.1\n\nrequired arguments:\n")) == (0, True)


def test_every_failure_is_told_twice_and_exits_with_1() -> None:
    done = run_jailer("--nonsense")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Failed to parse arguments: "
        "Found argument 'nonsense' which wasn't expected, or isn't valid in this context.\n"
        'Error: ArgumentParsing(UnexpectedArgument("nonsense"))\n'
    )
