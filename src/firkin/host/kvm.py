"""What /dev/kvm is worth here: evidence from running guest code, and the verdict that follows from it.

A KVM may open, make VMs and vCPUs, and still be unable to run a kernel, so nothing but execution counts. The guest code
itself is in `kvm_trial`; it runs in a child process, because an emulating KVM may hang.
"""

from __future__ import annotations

import errno
import os
import platform
import sys
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from pathlib import Path

import msgspec

from firkin.errors import KernelRefused
from firkin.host.files import write_atomic

DEVICE = Path("/dev/kvm")
OPEN_DEVICE = f"open {DEVICE}"
NATIVE_LOOP_HZ = 100e6  # hardware does 1 to 5 thousand million; emulators stay below ten million
NATIVE_MODULES = {"vmx": "kvm_intel", "svm": "kvm_amd"}  # CPU flag → module


class Step(StrEnum):
    """What the guest code does, in order."""

    START = "its first instruction"
    LOOP = "a counted loop"
    XSETBV = "XSETBV"
    XRSTOR = "XRSTOR"
    XSAVE = "XSAVE"
    INT3 = "INT3"
    IRETQ = "IRETQ"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """How far one run came. The child writes one after every step, so that a hang leaves the last."""

    failed_call: str = ""
    errno: int = 0
    reached: Step | None = None
    attempting: Step | None = None  # None before the guest starts, and when it is done
    finished: bool = False
    loop_rate_hz: float = 0.0
    exit_reason: int | None = None  # KVM_EXIT_* where the guest stopped too early
    suberror: int | None = None  # of KVM_EXIT_INTERNAL_ERROR


class KvmEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """All that `judge` looks at."""

    trial: Trial = Trial()
    timed_out: bool = False
    modules: tuple[str, ...] = ()  # kvm* in /sys/module
    cpu_flag: str = ""  # vmx, svm or nothing
    group_opens: bool = True  # group kvm owns the device and may read and write


class Kvm(StrEnum):
    """What KVM is worth."""

    NATIVE = "native"
    EMULATED = "emulated"
    ABSENT = "absent"
    FORBIDDEN = "forbidden"
    MISSING_MODULE = "missing-module"


class KvmVerdict(msgspec.Struct, frozen=True):
    """`why` is a sentence without its full stop; `fix` a command for root, with {user} for the user, or empty."""

    kind: Kvm
    why: str
    fix: str = ""


def judge(evidence: KvmEvidence) -> KvmVerdict:
    """The verdict on what was seen. Touches nothing."""
    trial = evidence.trial
    if trial.failed_call == OPEN_DEVICE:
        return _unopened(evidence)
    if trial.failed_call:
        return KvmVerdict(Kvm.ABSENT, f"KVM refuses to work ({trial.failed_call}: {os.strerror(trial.errno)})")
    if not trial.finished and trial.attempting is None:
        how = "hung" if evidence.timed_out else "died"
        return KvmVerdict(Kvm.ABSENT, f"KVM cannot be used (its test {how} before the guest started)")
    if trial.finished and trial.loop_rate_hz >= NATIVE_LOOP_HZ:
        return KvmVerdict(Kvm.NATIVE, f"KVM is native ({_backing(evidence)}, {_rate(trial)})")
    return KvmVerdict(
        Kvm.EMULATED,
        f"KVM is emulated by {_backing(evidence)} and cannot run an ordinary kernel ({_shortfall(evidence)})",
    )


def _unopened(evidence: KvmEvidence) -> KvmVerdict:
    number = evidence.trial.errno
    if number in (errno.EACCES, errno.EPERM):
        return _forbidden(evidence)
    module = NATIVE_MODULES.get(evidence.cpu_flag)
    if module and module not in evidence.modules:
        return KvmVerdict(Kvm.MISSING_MODULE, f"module {module} is not loaded", f"modprobe {module}")
    if module:
        return KvmVerdict(Kvm.ABSENT, f"{module} is loaded, but {DEVICE} is not here (a container without the device?)")
    return KvmVerdict(Kvm.ABSENT, f"there is no KVM ({OPEN_DEVICE}: {os.strerror(number)})")


def _forbidden(evidence: KvmEvidence) -> KvmVerdict:
    why = f"{DEVICE} may not be opened by this user"
    if evidence.group_opens:
        why = f"{why} (members of group kvm may, from their next login)"
        return KvmVerdict(Kvm.FORBIDDEN, why, "usermod -aG kvm {user}")
    return KvmVerdict(Kvm.FORBIDDEN, f"{why} (nor by members of group kvm)", f"chmod 0666 {DEVICE}")


def _backing(evidence: KvmEvidence) -> str:
    """The module behind the device; one that is neither Intel's nor AMD's is the one that emulates."""
    modules = [name for name in evidence.modules if name.startswith("kvm_")]
    strange = [name for name in modules if name not in NATIVE_MODULES.values()]
    return " ".join(strange or modules) or "an unknown module"


def _shortfall(evidence: KvmEvidence) -> str:
    trial = evidence.trial
    if trial.finished:
        return f"{_rate(trial)}, native is above {NATIVE_LOOP_HZ / 1e6:.0f} M"
    return f"{'hung' if evidence.timed_out else 'stopped'} at {trial.attempting}"


def _rate(trial: Trial) -> str:
    return f"{trial.loop_rate_hz / 1e6:,.1f} M loop iterations/s"


def measure(*, timeout_s: float = 3.0) -> KvmEvidence:
    """Run the guest code in a child for at most `timeout_s` seconds and say what was seen.

    Raises:
        KernelRefused: the child cannot be started.
    """
    trial, timed_out = _try_in_child(timeout_s)
    return KvmEvidence(
        trial=trial, timed_out=timed_out, modules=_modules(), cpu_flag=_cpu_flag(), group_opens=_group_opens()
    )


def _try_in_child(timeout_s: float) -> tuple[Trial, bool]:
    import subprocess

    if platform.machine() != "x86_64":
        return Trial(failed_call=f"guest code for {platform.machine()}", errno=errno.ENOTSUP), False
    try:
        child = subprocess.Popen(
            [sys.executable, "-I", "-m", "firkin.host.kvm_trial"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        raise KernelRefused(f"start {sys.executable}", error.errno or 0) from error
    with child.stdout:  # type: ignore[union-attr]  # a pipe was asked for
        try:
            return last_trial(child.communicate(timeout=timeout_s)[0]), False
        except subprocess.TimeoutExpired as late:
            child.kill()
            with suppress(subprocess.TimeoutExpired):  # stuck inside the kernel: it dies when it comes out
                child.wait(timeout=1)
            return last_trial(late.output or b""), True


def last_trial(output: bytes) -> Trial:
    """The last whole line of what the child wrote."""
    lines = output.split(b"\n")[:-1]
    return msgspec.json.decode(lines[-1], type=Trial) if lines else Trial()


def _modules() -> tuple[str, ...]:
    return tuple(sorted(path.name for path in Path("/sys/module").glob("kvm*")))


def _cpu_flag() -> str:
    with suppress(OSError), Path("/proc/cpuinfo").open() as lines:
        for line in lines:
            if line.startswith("flags"):
                return next((flag for flag in NATIVE_MODULES if flag in line.split()), "")
    return ""


def _group_opens() -> bool:
    try:
        status = DEVICE.stat()
        return DEVICE.group() == "kvm" and status.st_mode & 0o060 == 0o060
    except (OSError, KeyError):
        return False


class _Remembered(msgspec.Struct, frozen=True):
    key: str
    verdict: KvmVerdict


def verdict(
    cache: Path, *, fresh: bool = False, look: Callable[[], KvmEvidence] = measure, key: str | None = None
) -> KvmVerdict:
    """The verdict, measured once per boot and state of the device, remembered in `cache`; `fresh` measures anew."""
    key = _situation() if key is None else key
    if not fresh and (known := _recall(cache, key)) is not None:
        return known
    found = judge(look())
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(cache, msgspec.json.encode(_Remembered(key, found)))
    return found


def _recall(cache: Path, key: str) -> KvmVerdict | None:
    try:
        known = msgspec.json.decode(cache.read_bytes(), type=_Remembered)
    except (OSError, msgspec.DecodeError):
        return None
    return known.verdict if known.key == key else None


def _situation() -> str:
    """What a verdict depends on: this boot, this device, our access to it, the modules behind it."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    try:
        status = DEVICE.stat()
        device = f"{status.st_rdev} {status.st_mode:o} {status.st_ctime_ns} {os.access(DEVICE, os.R_OK | os.W_OK)}"
    except OSError as error:
        device = f"errno {error.errno}"
    return " ".join((boot, device, *_modules()))
