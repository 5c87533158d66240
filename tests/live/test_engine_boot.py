"""The engine with a config file and the console on its own streams: real guests under TCG."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine_rig import BOOT_ARGS, Rig, build_initrd, engine, gone, need_kernel

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    need_kernel()
    return build_initrd(tmp_path_factory.mktemp("initrd"))


@pytest.fixture
def rig(tmp_path: Path, initrd: Path) -> Rig:
    return Rig(tmp_path, need_kernel(), initrd)


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    master, slave = pty.openpty()
    yield master, slave
    os.close(master)
    os.close(slave)


def is_raw(slave: int) -> bool:
    return not termios.tcgetattr(slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)


def test_console_both_ways_and_reboot_ends_with_zero(rig: Rig) -> None:
    with engine("--no-api", "--config-file", rig.config()) as vmm:
        vmm.expect("READY")
        vmm.ask("hello", "said:hello")
        assert "pci=off nolapic_timer noreplace-smp tsc_early_khz=" in vmm.ask("cat /proc/cmdline", "mitigations=off")
        vmm.type("reboot")
        vmm.expect("Firecracker exiting successfully. exit_code=0")
        assert vmm.wait() == 0


def test_a_terminal_is_raw_while_the_guest_runs_and_as_before_afterwards(rig: Rig, terminal: tuple[int, int]) -> None:
    before = termios.tcgetattr(terminal[1])
    with engine("--no-api", "--config-file", rig.config(), tty=terminal) as vmm:
        vmm.expect("READY")
        assert is_raw(terminal[1])
        vmm.ask("hello", "said:hello")
        vmm.type("reboot")
        vmm.expect("exit_code=0")
        assert vmm.wait() == 0
    assert termios.tcgetattr(terminal[1]) == before


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGINT), (signal.SIGHUP, 156)],
    ids=["TERM", "INT", "HUP"],
)
def test_a_signal_ends_the_guest_and_restores_the_terminal(
    rig: Rig, terminal: tuple[int, int], number: signal.Signals, code: int
) -> None:
    before = termios.tcgetattr(terminal[1])
    with engine("--no-api", "--config-file", rig.config(), tty=terminal) as vmm:
        vmm.expect("Successfully started microvm")
        assert is_raw(terminal[1])
        qemu = vmm.qemu()
        vmm.process.send_signal(number)
        assert vmm.wait() == code
        assert gone(qemu)
    assert termios.tcgetattr(terminal[1]) == before


def test_qemu_never_outlives_the_engine(rig: Rig) -> None:
    with engine("--no-api", "--config-file", rig.config()) as vmm:
        vmm.expect("READY")
        qemu = vmm.qemu()
        vmm.process.kill()
        assert gone(qemu)


def test_qemu_dying_is_an_error(rig: Rig) -> None:
    with engine("--no-api", "--config-file", rig.config()) as vmm:
        vmm.expect("READY")
        os.kill(vmm.qemu(), signal.SIGKILL)
        vmm.expect("QEMU killed by signal 9")
        vmm.expect("Firecracker exiting with error. exit_code=1")
        assert vmm.wait() == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has something to give up")
def test_qemu_has_nothing_to_abuse(rig: Rig) -> None:
    with engine("--no-api", "--config-file", rig.config()) as vmm:
        vmm.expect("READY")
        qemu = Path(f"/proc/{vmm.qemu()}")
        status = dict(line.split(":\t", 1) for line in (qemu / "status").read_text().splitlines() if ":\t" in line)
        assert status["Uid"].split() == status["Gid"].split() == ["65534"] * 4
        assert not status["Groups"].strip()
        for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            assert int(status[name], 16) == 0, name
        # The library's, which forbids programs, and QEMU's own sandbox.
        assert (status["NoNewPrivs"], status["Seccomp"], status["Seccomp_filters"]) == ("1", "2", "2")
        environment = dict(word.split("=", 1) for word in (qemu / "environ").read_text().split("\0") if word)
        assert environment.keys() == {"PATH", "LANG", "LD_PRELOAD", "FIRKIN_TWIN"}
        assert environment["PATH"] == "/usr/bin:/bin"
        opened = [str(link.readlink()) for link in (qemu / "fd").iterdir()]
        assert not [path for path in opened if path.startswith("/dev/") and path != "/dev/null"]
        assert str(rig.initrd) not in opened


def test_root_is_vda_and_the_rest_follow_in_order(rig: Rig) -> None:
    drives = [
        {"drive_id": name, "path_on_host": rig.disk(name), "is_root_device": name == "root", "is_read_only": True}
        for name in ("first", "second", "root", "third")
    ]
    with engine("--no-api", "--config-file", rig.config(drives=drives)) as vmm:
        vmm.expect("READY")
        for device, name in (("vda", "root"), ("vdb", "first"), ("vdc", "second"), ("vdd", "third")):
            vmm.ask(f"head /dev/{device}", f"/dev/{device}=<disk {name}")
        assert "root=/dev/vda ro" in vmm.ask("cat /proc/cmdline", "mitigations=off")


def test_arguments_after_two_dashes_reach_init_and_devices_still_work(rig: Rig) -> None:
    drive = {"drive_id": "a", "path_on_host": rig.disk("a"), "is_root_device": False}
    with engine("--no-api", "--config-file", rig.config(f"{BOOT_ARGS} -- one two", drives=[drive])) as vmm:
        assert "argument:one" in vmm.expect("READY")
        assert "argument:two" in vmm.output.decode()
        vmm.ask("head /dev/vda", "/dev/vda=<disk a")


def test_four_processors_show_up(rig: Rig) -> None:
    machine = {"machine-config": {"vcpu_count": 4, "mem_size_mib": 192, "smt": True}}
    with engine("--no-api", "--config-file", rig.config(BOOT_ARGS, **machine)) as vmm:
        vmm.expect("READY")
        vmm.ask("cat /sys/devices/system/cpu/online", "=<0-3>")


@pytest.mark.parametrize("source", ["null", "file", "fifo"])
def test_input_may_end_or_never_begin(rig: Rig, source: str) -> None:
    path = rig.folder / "input"
    match source:
        case "null":
            path = Path("/dev/null")
        case "file":
            path.write_text("\n" * 64)  # what comes before the guest opens its port is lost
        case "fifo":
            os.mkfifo(path)
    command = [sys.executable, "-I", "-m", "firkin.engine", "--no-api", "--config-file", str(rig.config())]
    with path.open("rb" if source != "fifo" else "r+b", buffering=0) as stdin, (rig.folder / "out").open("wb") as out:
        process = subprocess.Popen(command, stdin=stdin, stdout=out)
        try:
            _until(rig.folder / "out", "READY")
            if source == "fifo":
                path.write_text("hello\nreboot\n")
                assert process.wait(30) == 0
                assert "said:hello" in (rig.folder / "out").read_text()
            else:
                with pytest.raises(subprocess.TimeoutExpired):
                    process.wait(0.3)
        finally:
            process.kill()
            process.wait(10)


def _until(path: Path, text: str) -> None:
    from firkin.host.wait import wait_until

    assert wait_until(lambda: text in path.read_text(errors="replace"), timeout_s=60)
