"""The real trial on the real device, its guest code on an emulated CPU, and the verb itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firkin.host import kvm, kvm_trial
from firkin.host.kvm import Kvm, Step
from firkin.host.run import find
from firkin.host.wait import wait_until
from firkin.manager.doctor import chosen_engine
from firkin.paths import Paths

pytestmark = pytest.mark.live


def firkin(*argv: str, home: Path) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"FIRKIN_HOME": str(home)}
    command = [sys.executable, "-c", "from firkin.cli import main; main()", *argv]
    return subprocess.run(command, env=environ, capture_output=True, text=True, timeout=30)


def test_the_trial_tells_the_truth_about_this_host() -> None:
    if not kvm.DEVICE.exists():
        pytest.skip("no /dev/kvm")
    verdict = kvm.judge(kvm.measure(timeout_s=20))
    if Path("/sys/module/kvm_pvm").exists():
        assert verdict.kind is Kvm.EMULATED
        assert "kvm_pvm" in verdict.why
    else:
        assert verdict.kind in (Kvm.NATIVE, Kvm.FORBIDDEN)


def test_a_trial_out_of_time_ends_at_once_and_leaves_nobody() -> None:
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    before, started = children.read_text(), time.monotonic()
    evidence = kvm.measure(timeout_s=0.001)
    assert evidence.timed_out
    assert time.monotonic() - started < 2
    assert children.read_text() == before


def reset_rom() -> bytes:
    """Firmware of 64 KiB that goes from the reset vector straight into the trial's long mode."""

    def load(opcode: str, value: int) -> bytes:
        return bytes.fromhex(opcode) + value.to_bytes(4, "little")

    eax, ecx, esp = "66b8", "66b9", "66bc"
    gdtr, idtr = 0x100, 0x108
    code = (
        bytes.fromhex("fa 2e660f0116") + gdtr.to_bytes(2, "little")
        + bytes.fromhex("2e660f011e") + idtr.to_bytes(2, "little")
        + load(eax, kvm_trial.CR4 | kvm_trial.CR4_OSXSAVE) + bytes.fromhex("0f22e0")
        + load(eax, kvm_trial.PML4) + bytes.fromhex("0f22d8")
        + load(ecx, 0xC0000080) + load(eax, 0x100) + bytes.fromhex("6631d2 0f30")
        + load(esp, kvm_trial.STACK)
        + load(eax, kvm_trial.CR0) + bytes.fromhex("0f22c0")
        + load("66ea", kvm_trial.CODE) + kvm_trial.CODE_SELECTOR.to_bytes(2, "little")
    )  # fmt: skip
    rom = bytearray(0x10000)
    rom[: len(code)] = code
    rom[gdtr : gdtr + 6] = b"\x27\x00" + kvm_trial.GDT.to_bytes(4, "little")
    rom[idtr : idtr + 6] = b"\xff\x0f" + kvm_trial.IDT.to_bytes(4, "little")
    rom[0xFFF0:0xFFF5] = bytes.fromhex("ea000000f0")
    return bytes(rom)


def trial_memory() -> bytes:
    """The guest's memory up to its stack; nobody answers the loop's question here, so its count is zero."""
    memory = bytearray(kvm_trial.STACK)
    for address, content in kvm_trial.memory_image(xsave=True).items():
        memory[address : address + len(content)] = content
    ask, zero = bytes((0xE5, kvm_trial.LOOP_PORT)), bytes.fromhex("31c0")
    return bytes(memory).replace(ask, zero, 1)


def test_the_guest_code_takes_every_step_on_a_cpu_that_can(tmp_path: Path) -> None:
    rom, memory, said = (tmp_path / name for name in ("rom", "memory", "said"))
    rom.write_bytes(reset_rom())
    memory.write_bytes(trial_memory())
    command = [
        find("qemu-system-x86_64"), "-M", "microvm", "-accel", "tcg", "-cpu", "max", "-m", "8",
        "-nodefaults", "-no-user-config", "-nographic", "-no-reboot", "-bios", str(rom),
        "-device", f"loader,file={memory},addr=0,force-raw=on",
        "-chardev", f"file,id=steps,path={said}",
        "-device", f"isa-debugcon,iobase={kvm_trial.STEP_PORT:#x},chardev=steps",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as qemu:
        try:
            wait_until(lambda: qemu.poll() is not None or _steps(said) == list(Step), timeout_s=20)
        finally:
            qemu.kill()
            complaint = qemu.communicate()[1]
    assert _steps(said) == list(Step), complaint


def _steps(said: Path) -> list[Step]:
    return [kvm_trial.STEPS[number] for number in said.read_bytes()] if said.exists() else []


def test_doctor_reports_and_remembers(tmp_path: Path) -> None:
    done = firkin("doctor", "--json", home=tmp_path)
    report = json.loads(done.stdout)
    assert done.returncode == (0 if report["ok"] else 125), done.stderr
    paths = Paths(tmp_path, tmp_path / "run")
    assert (paths.run / "kvm.json").exists()
    assert chosen_engine(paths) == report["engine"]


def test_a_remembered_choice_is_cheap(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "run")
    chosen_engine(paths)

    def timed() -> float:
        started = time.perf_counter()
        chosen_engine(paths)
        return time.perf_counter() - started

    assert min(timed() for _ in range(5)) < 0.005


def test_doctor_prints_a_table_and_the_verdict(tmp_path: Path) -> None:
    done = firkin("doctor", home=tmp_path)
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["CHECK", "FOUND", "NEEDED", "STATUS", "FIX"]
    assert "machines" in lines[-1]
