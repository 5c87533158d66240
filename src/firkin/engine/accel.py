"""Which accelerator QEMU gets: KVM where it is worth something, else QEMU's own translator."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from enum import StrEnum

from firkin.engine.faults import Area, Fault, os_text

_DEVICE = "/dev/kvm"


class Accel(StrEnum):
    """QEMU's own names."""

    KVM = "kvm"
    TCG = "tcg"


class Choice(StrEnum):
    """What `--accel` may say."""

    AUTO = "auto"
    KVM = "kvm"
    TCG = "tcg"


def choose(wanted: Choice, *, device: str = _DEVICE, shortfall: Callable[[], str | None] | None = None) -> Accel:
    """Decide, by trial where the device alone does not tell. `shortfall` says why KVM is not native, None if it is.

    Raises:
        Fault: KVM was asked for, and cannot be opened or cannot run an ordinary kernel.
    """
    if wanted is Choice.TCG:
        return Accel.TCG
    try:
        os.close(os.open(device, os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if wanted is Choice.AUTO:
            return Accel.TCG
        advice = "Make sure the user launching the firecracker process is configured on the /dev/kvm file's ACL."
        raise Fault(f"Kvm error: Error creating KVM object: {os_text(error)} {advice}", Area.START) from error
    why = (shortfall or _shortfall)()
    if why is None:
        return Accel.KVM
    if wanted is Choice.KVM:
        raise Fault(f"Kvm error: {why}.", Area.START)
    return Accel.TCG


def group_of_device(device: str = _DEVICE) -> int | None:
    """The group whose members may open the device where not everybody may; it is all that QEMU is given besides."""
    status = os.stat(device)  # noqa: PTH116 - pathlib costs start-up time
    may_all = status.st_mode & (stat.S_IROTH | stat.S_IWOTH) == stat.S_IROTH | stat.S_IWOTH
    may_group = status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) == stat.S_IRGRP | stat.S_IWGRP
    return status.st_gid if may_group and not may_all and status.st_gid != 0 else None


def _shortfall() -> str | None:
    # Without one of the two, whoever answers on /dev/kvm emulates: no trial is needed, nor what it would import.
    if not {"vmx", "svm"} & _cpu_flags():
        return f"KVM is emulated by {_modules()} and cannot run an ordinary kernel"
    return _tried()


def _cpu_flags() -> set[str]:
    with open("/proc/cpuinfo", "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
        text = file.read(8192).decode(errors="replace")
    return {flag for line in text.splitlines() if line.startswith("flags") for flag in line.split()}


def _modules() -> str:
    try:
        names = sorted(name for name in os.listdir("/sys/module") if name.startswith("kvm_"))  # noqa: PTH208 - as above
    except FileNotFoundError:  # a jail has no /sys
        names = []
    return ", ".join(names) or "an unknown module"


def _tried() -> str | None:
    """Run guest code, once per boot of the host where the verdict can be remembered."""
    from pathlib import Path

    from firkin.host import kvm

    folder = "/run" if os.geteuid() == 0 else os.environ.get("XDG_RUNTIME_DIR")
    verdict = kvm.verdict(Path(folder, "firkin/kvm.json")) if folder else kvm.judge(kvm.measure())
    return None if verdict.kind is kvm.Kvm.NATIVE else verdict.why
