"""The verdict on KVM from evidence alone, its memory, and the shape of the guest code."""

from __future__ import annotations

import errno
from pathlib import Path

import msgspec
import pytest

from firkin.host import kvm, kvm_trial
from firkin.host.kvm import Kvm, KvmEvidence, KvmVerdict, Step, Trial, judge

FAST = Trial(reached=Step.IRETQ, finished=True, loop_rate_hz=3e9)


def unopened(number: int, **facts: object) -> KvmVerdict:
    trial = Trial(failed_call=kvm.OPEN_DEVICE, errno=number)
    return judge(msgspec.structs.replace(KvmEvidence(trial=trial), **facts))


def test_fast_and_finished_is_native() -> None:
    verdict = judge(KvmEvidence(trial=FAST, modules=("kvm", "kvm_intel"), cpu_flag="vmx"))
    assert verdict == KvmVerdict(Kvm.NATIVE, "KVM is native (kvm_intel, 3,000.0 M loop iterations/s)")


def test_a_guest_that_stops_early_is_emulated_by_the_module_named() -> None:
    trial = Trial(reached=Step.XSETBV, attempting=Step.XRSTOR, loop_rate_hz=6e5, exit_reason=17, suberror=1)
    verdict = judge(KvmEvidence(trial=trial, modules=("kvm", "kvm_amd", "kvm_pvm")))
    assert verdict.kind is Kvm.EMULATED
    assert verdict.why == "KVM is emulated by kvm_pvm and cannot run an ordinary kernel (stopped at XRSTOR)"


def test_a_guest_that_hangs_is_emulated() -> None:
    trial = Trial(reached=Step.START, attempting=Step.LOOP)
    verdict = judge(KvmEvidence(trial=trial, timed_out=True, modules=("kvm",)))
    assert verdict.kind is Kvm.EMULATED
    assert "an unknown module" in verdict.why
    assert "hung at a counted loop" in verdict.why


def test_a_guest_that_finishes_slowly_is_emulated() -> None:
    verdict = judge(KvmEvidence(trial=msgspec.structs.replace(FAST, loop_rate_hz=1.2e6), modules=("kvm", "kvm_pvm")))
    assert verdict.kind is Kvm.EMULATED
    assert "1.2 M loop iterations/s, native is above 100 M" in verdict.why


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM])
def test_no_permission_is_forbidden_and_names_the_group(number: int) -> None:
    verdict = unopened(number, modules=("kvm", "kvm_amd"), cpu_flag="svm")
    assert (verdict.kind, verdict.fix) == (Kvm.FORBIDDEN, "usermod -aG kvm {user}")


def test_a_device_closed_to_the_group_too_is_opened_by_its_mode() -> None:
    assert unopened(errno.EACCES, group_opens=False).fix == "chmod 0666 /dev/kvm"


@pytest.mark.parametrize(("flag", "module"), [("vmx", "kvm_intel"), ("svm", "kvm_amd")])
def test_a_cpu_without_its_module_misses_it(flag: str, module: str) -> None:
    verdict = unopened(errno.ENOENT, cpu_flag=flag)
    assert (verdict.kind, verdict.fix) == (Kvm.MISSING_MODULE, f"modprobe {module}")


def test_no_device_and_no_cpu_flag_is_absent() -> None:
    assert unopened(errno.ENOENT) == KvmVerdict(
        Kvm.ABSENT, "there is no KVM (open /dev/kvm: No such file or directory)"
    )


def test_a_module_without_its_device_is_absent() -> None:
    verdict = unopened(errno.ENOENT, modules=("kvm", "kvm_intel"), cpu_flag="vmx")
    assert verdict.kind is Kvm.ABSENT
    assert "kvm_intel is loaded" in verdict.why


def test_a_refused_call_is_absent_and_named() -> None:
    verdict = judge(KvmEvidence(trial=Trial(failed_call="KVM_CREATE_VM", errno=errno.EBUSY)))
    assert verdict == KvmVerdict(Kvm.ABSENT, "KVM refuses to work (KVM_CREATE_VM: Device or resource busy)")


@pytest.mark.parametrize(("timed_out", "how"), [(True, "hung"), (False, "died")])
def test_a_trial_without_a_guest_is_absent(timed_out: bool, how: str) -> None:
    verdict = judge(KvmEvidence(timed_out=timed_out))
    assert verdict.kind is Kvm.ABSENT
    assert how in verdict.why


def test_the_last_whole_line_of_a_killed_child_counts() -> None:
    whole = msgspec.json.encode(Trial(attempting=Step.LOOP))
    assert kvm.last_trial(whole + b'\n{"reached":"XSA') == Trial(attempting=Step.LOOP)
    assert kvm.last_trial(b"") == Trial()


def test_the_verdict_is_measured_once_per_situation(tmp_path: Path) -> None:
    cache, looks = tmp_path / "run" / "kvm.json", []

    def look() -> KvmEvidence:
        looks.append(1)
        return KvmEvidence(trial=FAST)

    first = kvm.verdict(cache, look=look, key="boot 1")
    assert kvm.verdict(cache, look=look, key="boot 1") == first
    assert len(looks) == 1
    kvm.verdict(cache, look=look, key="boot 2")
    kvm.verdict(cache, look=look, key="boot 2", fresh=True)
    assert len(looks) == 3


def test_a_spoilt_cache_is_measured_over(tmp_path: Path) -> None:
    cache = tmp_path / "kvm.json"
    cache.write_text('{"key": 1')
    assert kvm.verdict(cache, look=lambda: KvmEvidence(trial=FAST), key="boot").kind is Kvm.NATIVE


def test_without_xsave_the_guest_code_leaves_it_out() -> None:
    steps = [step for step, _ in kvm_trial.program(xsave=False)]
    assert steps == [Step.START, Step.LOOP, Step.INT3, Step.IRETQ]
    assert [step for step, _ in kvm_trial.program(xsave=True)] == list(Step)


def test_special_registers_fill_the_kernels_structure() -> None:
    old = bytes(280) + b"\x01" * 32
    assert len(kvm_trial.special_registers(old, xsave=True)) == 312
    assert kvm_trial.special_registers(old, xsave=True)[280:] == old[280:]


def test_loops_grow_until_they_can_be_timed() -> None:
    clock = kvm_trial.LoopClock()
    counts = list(iter(clock.next_count, 0))
    assert counts[0] == kvm_trial.LOOP_FIRST
    assert counts == sorted(counts)
    assert max(counts) <= kvm_trial.LOOP_LAST
    assert clock.best_hz > 0
