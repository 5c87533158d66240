"""The host check over a host that is only told about."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firkin.cli.doctor import carry_out, fixes, verdict_line
from firkin.host.kvm import Kvm, KvmVerdict
from firkin.manager import doctor
from firkin.manager.checks import Check, Status
from firkin.paths import Paths

NATIVE = KvmVerdict(Kvm.NATIVE, "KVM is native")
FORBIDDEN = KvmVerdict(Kvm.FORBIDDEN, "/dev/kvm may not be opened", "usermod -aG kvm {user}")
EMULATED = KvmVerdict(Kvm.EMULATED, "KVM is emulated by kvm_pvm")
MEMINFO = "MemTotal:  8388608 kB\nMemAvailable:  4194304 kB"
PATHS = Paths(Path("/home/firkin"), Path("/run/firkin"))


@dataclass
class FakeHost:
    """A well-equipped host, owned by root."""

    uid: int = 0
    user: str = "ada"
    architecture: str = "x86_64"
    release: str = "6.1.0-30-cloud-amd64"
    verdict: KvmVerdict = EMULATED
    groups: set[str] = field(default_factory=set)
    modes: dict[str, int] = field(default_factory=lambda: {"/dev/net/tun": 0o600})
    closed: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=lambda: {"firecracker"})
    files: dict[str, str] = field(default_factory=lambda: {"/proc/meminfo": MEMINFO})
    qemu_says: str = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)"
    disk_mib: int = 50_000

    def kvm(self) -> KvmVerdict:
        return self.verdict

    def in_group(self, name: str) -> bool:
        return name in self.groups

    def exists(self, path: str) -> bool:
        return path not in self.missing

    def mode(self, path: str) -> int | None:
        return self.modes.get(path)

    def openable(self, path: str) -> bool:
        return path not in self.closed

    def read(self, path: str) -> str:
        return self.files.get(path, "")

    def program(self, name: str) -> str:
        return "" if name in self.missing else f"/usr/bin/{name}"

    def first_line(self, *argv: str) -> str:
        return self.qemu_says

    def library(self, name: str) -> bool:
        return name not in self.missing

    def free_mib(self, folder: Path) -> int:
        return self.disk_mib


def check(host: FakeHost, name: str) -> Check:
    return next(check for check in doctor.diagnose(host, PATHS).checks if check.name == name)


@pytest.mark.parametrize(
    ("verdict", "firecracker", "engine"),
    [(NATIVE, True, "firecracker"), (NATIVE, False, "firkin-vmm"), (EMULATED, True, "firkin-vmm")],
)
def test_firecracker_needs_native_kvm_and_its_program(verdict: KvmVerdict, firecracker: bool, engine: str) -> None:
    assert doctor.pick_engine(verdict, firecracker=firecracker) == engine


def test_a_good_host_passes_every_check() -> None:
    report = doctor.diagnose(FakeHost(), PATHS)
    assert {check.status for check in report.checks} == {Status.OK}
    assert verdict_line(report) == "KVM is emulated by kvm_pvm: machines run on firkin-vmm"


def test_native_without_firecracker_says_so() -> None:
    report = doctor.diagnose(FakeHost(verdict=NATIVE), PATHS)
    assert (report.ok, report.engine) == (True, "firkin-vmm")
    assert report.why == "KVM is native, but there is no firecracker program on the PATH"


def test_missing_qemu_stops_firkin_vmm_but_not_firecracker() -> None:
    report = doctor.diagnose(FakeHost(missing={"firecracker", "qemu-system-x86_64"}), PATHS)
    assert not report.ok
    assert fixes(report) == ["apt-get install -y qemu-system-x86"]
    assert verdict_line(report).endswith("cannot yet (qemu-system-x86_64)")
    assert doctor.diagnose(FakeHost(verdict=NATIVE, missing={"qemu-system-x86_64"}), PATHS).ok


@pytest.mark.parametrize(
    ("says", "status"),
    [("QEMU emulator version 10.0.2", Status.OK), ("QEMU emulator version 6.2.0", Status.WARN), ("", Status.FAIL)],
)
def test_qemus_version_is_read_from_what_it_says(says: str, status: Status) -> None:
    assert check(FakeHost(qemu_says=says), "qemu-system-x86_64").status is status


@pytest.mark.parametrize(
    ("host", "name"),
    [
        (FakeHost(architecture="aarch64"), "architecture"),
        (FakeHost(release="5.4.0-1"), "Linux"),
        (FakeHost(disk_mib=100), "disk"),
        (FakeHost(files={"/proc/meminfo": "MemAvailable: 102400 kB"}), "memory"),
    ],
)
def test_what_no_machine_can_do_without_fails(host: FakeHost, name: str) -> None:
    assert check(host, name).status is Status.FAIL


def test_fixes_are_told_once_and_with_sudo_for_a_user() -> None:
    host = FakeHost(uid=1000, missing={"ssh", "ssh-keygen", "libnftables.so.1", "nft"})
    assert fixes(doctor.diagnose(host, PATHS)) == [
        "sudo apt-get install -y nftables",
        "sudo apt-get install -y openssh-client",
    ]


def test_a_forbidden_device_is_mended_by_joining_the_group() -> None:
    assert check(FakeHost(uid=1000, verdict=FORBIDDEN), "KVM").fix == "sudo usermod -aG kvm ada"
    assert check(FakeHost(uid=1000, verdict=FORBIDDEN), "group kvm").fix == "sudo usermod -aG kvm ada"
    assert check(FakeHost(verdict=FORBIDDEN), "KVM").fix == ""


def test_a_tun_for_root_only_leaves_users_without_network() -> None:
    found = check(FakeHost(uid=1000, closed={"/dev/net/tun"}), "tun")
    assert found.status is Status.WARN
    assert "without root" in found.found
    assert found.fix == "sudo chmod 0666 /dev/net/tun"


def test_a_missing_tun_wants_its_module() -> None:
    assert check(FakeHost(modes={}), "tun").fix == "modprobe tun"
    assert check(FakeHost(closed={"/dev/net/tun"}), "tun").found == "no driver"


def test_closed_user_namespaces_are_opened_by_sysctl() -> None:
    host = FakeHost(uid=1000, files={"/proc/sys/kernel/unprivileged_userns_clone": "0"})
    assert check(host, "user namespaces").fix == "sudo sysctl -w kernel.unprivileged_userns_clone=1"


def test_a_fix_that_fails_is_reported_and_the_next_one_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mended = tmp_path / "mended by us"
    carry_out(["false", f"touch '{mended}'"])
    assert mended.exists()
    assert "`false` exited with 1" in capsys.readouterr().err
