"""What firkin needs of a host: one small function per need, over the few reads of a `Host`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from firkin.host import kvm
from firkin.host.kvm import Kvm, KvmVerdict
from firkin.host.run import PACKAGES
from firkin.settings import EngineChoice

LINUX_NEEDED = (5, 6)  # pidfd_getfd; seccomp user notification is older
QEMU_NEEDED = (7, 2)
DISK_NEEDED_MIB, DISK_WANTED_MIB = 256, 2048
MEMORY_NEEDED_MIB, MEMORY_WANTED_MIB = 192, 512
TUN = "/dev/net/tun"
QEMU = "qemu-system-x86_64"
PROGRAMS = {
    "mksquashfs": "to build images",
    "mkfs.ext4": "for writable layers",
    "mmdebstrap": "to build Debian images",
    "apt-get": "to fetch kernels and packages",
    "dpkg-deb": "to unpack kernels",
    "ssh": "for firkin ssh",
    "ssh-keygen": "for firkin ssh",
    "ip": "to look at networks by hand",
}


class Host(Protocol):
    """The few reads the checks need; `host.facts.LocalHost` does them for real and says what each answers."""

    @property
    def uid(self) -> int: ...
    @property
    def user(self) -> str: ...
    @property
    def architecture(self) -> str: ...
    @property
    def release(self) -> str: ...
    def kvm(self) -> KvmVerdict: ...
    def in_group(self, name: str) -> bool: ...
    def exists(self, path: str) -> bool: ...
    def mode(self, path: str) -> int | None: ...
    def openable(self, path: str) -> bool: ...
    def read(self, path: str) -> str: ...
    def program(self, name: str) -> str: ...
    def first_line(self, *argv: str) -> str: ...
    def library(self, name: str) -> bool: ...
    def free_mib(self, folder: Path) -> int: ...


class Status(StrEnum):
    """How much it matters."""

    OK = "ok"
    WARN = "warn"  # machines run, something else does not
    FAIL = "fail"  # no machine runs


class Check(msgspec.Struct, frozen=True):
    """One line of the report; `fix` is a command line without shell syntax, empty when none mends it."""

    name: str
    found: str
    needed: str
    status: Status
    fix: str = ""


class Case(msgspec.Struct, frozen=True):
    """What every check may look at."""

    host: Host
    home: Path
    kvm: KvmVerdict
    engine: str


def _architecture(case: Case) -> Iterator[Check]:
    found = case.host.architecture
    yield Check("architecture", found, "x86_64", _must(found == "x86_64"))


def _linux(case: Case) -> Iterator[Check]:
    release = case.host.release
    yield Check("Linux", release, _at_least(LINUX_NEEDED), _must(_version(release) >= LINUX_NEEDED))


def _kvm(case: Case) -> Iterator[Check]:
    # Nothing is wrong with a host that has no KVM to mend: firkin-vmm is made for it.
    yield Check("KVM", case.kvm.kind, "native, for firecracker", _should(not case.kvm.fix), _kvm_fix(case))


def _kvm_fix(case: Case) -> str:
    if not case.kvm.fix or (case.host.uid == 0 and case.kvm.kind is Kvm.FORBIDDEN):
        return ""  # what is forbidden to root, a container's rule forbids: no group or mode lifts it
    return _as_root(case.host, case.kvm.fix.format(user=case.host.user))


def _kvm_group(case: Case) -> Iterator[Check]:
    if case.host.uid == 0:
        yield Check("group kvm", "root", "not for root", Status.OK)
    else:
        member, forbidden = case.host.in_group("kvm"), case.kvm.kind is Kvm.FORBIDDEN
        found, fix = "member" if member else "not a member", _kvm_fix(case) if forbidden and not member else ""
        yield Check("group kvm", found, f"to open {kvm.DEVICE}", _should(member or not forbidden), fix)


def _firecracker(case: Case) -> Iterator[Check]:
    path = case.host.program("firecracker")
    status = _should(bool(path) or case.kvm.kind is not Kvm.NATIVE)
    yield Check("firecracker", path or "not on the PATH", "where KVM is native", status)


def _tun(case: Case) -> Iterator[Check]:
    mode = case.host.mode(TUN)
    if mode is None or (case.host.uid == 0 and not case.host.openable(TUN)):
        found = "missing" if mode is None else "no driver"
        yield Check("tun", found, f"{TUN}, for networks", Status.WARN, _as_root(case.host, "modprobe tun"))
    elif case.host.openable(TUN):
        yield Check("tun", f"mode {mode:04o}", f"{TUN}, for networks", Status.OK)
    else:
        found = f"mode {mode:04o}: without root, machines get no network"
        yield Check("tun", found, "mode 0666", Status.WARN, _as_root(case.host, f"chmod 0666 {TUN}"))


def _nftables(case: Case) -> Iterator[Check]:
    library = "libnftables.so.1"
    found = library if case.host.library(library) else case.host.program("nft")
    fix = "" if found else _install(case.host, "nftables")
    yield Check("nftables", found or "missing", "for NAT and firewall", _should(bool(found)), fix)


def _namespaces(case: Case) -> Iterator[Check]:
    host = case.host
    missing = [name for name in ("net", "mnt", "user") if not host.exists(f"/proc/self/ns/{name}")]
    found = f"no {' '.join(missing)}" if missing else "net mnt user"
    yield Check("namespaces", found, "net mnt user", _should(not missing))
    if host.uid != 0:
        yield from _user_namespaces(host)


def _user_namespaces(host: Host) -> Iterator[Check]:
    """Three ways in which distributions close them to ordinary users."""
    knobs = (
        ("/proc/sys/user/max_user_namespaces", "0", "user.max_user_namespaces=15000"),
        ("/proc/sys/kernel/unprivileged_userns_clone", "0", "kernel.unprivileged_userns_clone=1"),
        (
            "/proc/sys/kernel/apparmor_restrict_unprivileged_userns",
            "1",
            "kernel.apparmor_restrict_unprivileged_userns=0",
        ),
    )
    closed = [setting for path, bad, setting in knobs if host.read(path) == bad]
    fix = _as_root(host, f"sysctl -w {' '.join(closed)}") if closed else ""
    yield Check("user namespaces", "closed" if closed else "open", "open, without root", _should(not closed), fix)


def _qemu(case: Case) -> Iterator[Check]:
    host, bad = case.host, Status.FAIL if case.engine == EngineChoice.FIRKIN_VMM else Status.WARN
    if not host.program(QEMU):
        yield Check(QEMU, "missing", _at_least(QEMU_NEEDED), bad, _install(host, QEMU))
        return
    said = host.first_line(QEMU, "--version")
    number = re.search(r"version ([\d.]+)", said)
    found, new_enough = (number[1], _version(number[1]) >= QEMU_NEEDED) if number else ("does not run", False)
    status = Status.OK if new_enough else Status.WARN if number else bad
    yield Check(QEMU, found, _at_least(QEMU_NEEDED), status)


def _programs(case: Case) -> Iterator[Check]:
    for name, purpose in PROGRAMS.items():
        path = case.host.program(name)
        fix = "" if path or name == "apt-get" else _install(case.host, name)
        yield Check(name, path or "missing", purpose, _should(bool(path)), fix)


def _disk(case: Case) -> Iterator[Check]:
    free = case.host.free_mib(case.home)
    status = _amount(free, DISK_NEEDED_MIB, DISK_WANTED_MIB)
    yield Check("disk", f"{free} MiB free at {case.home}", f"{DISK_WANTED_MIB} MiB", status)


def _memory(case: Case) -> Iterator[Check]:
    line = re.search(r"^MemAvailable:\s+(\d+) kB", case.host.read("/proc/meminfo"), re.MULTILINE)
    available = int(line[1]) // 1024 if line else 0
    status = _amount(available, MEMORY_NEEDED_MIB, MEMORY_WANTED_MIB)
    yield Check("memory", f"{available} MiB available", f"{MEMORY_WANTED_MIB} MiB", status)


CHECKS: tuple[Callable[[Case], Iterable[Check]], ...] = (
    _architecture,
    _linux,
    _kvm,
    _kvm_group,
    _firecracker,
    _tun,
    _nftables,
    _namespaces,
    _qemu,
    _programs,
    _disk,
    _memory,
)


def _must(good: bool) -> Status:
    return Status.OK if good else Status.FAIL


def _should(good: bool) -> Status:
    return Status.OK if good else Status.WARN


def _amount(found: int, needed: int, wanted: int) -> Status:
    return Status.FAIL if found < needed else _should(found >= wanted)


def _version(text: str) -> tuple[int, ...]:
    """The leading numbers: 6.18.44-fc → (6, 18, 44)."""
    number = re.match(r"\d+(\.\d+)*", text)
    return tuple(map(int, number[0].split("."))) if number else ()


def _at_least(version: tuple[int, ...]) -> str:
    return f"{'.'.join(map(str, version))} or later"


def _as_root(host: Host, command: str) -> str:
    return command if host.uid == 0 else f"sudo {command}"


def _install(host: Host, program: str) -> str:
    return _as_root(host, f"apt-get install -y {PACKAGES.get(program, program)}")
