"""Can this host run machines, and on which engine? The report that `firkin doctor` shows, and the engine's choice."""

from __future__ import annotations

import shutil
from pathlib import Path

import msgspec

from firkin.host import kvm
from firkin.host.kvm import Kvm, KvmVerdict
from firkin.manager.checks import CHECKS, Case, Check, Host, Status
from firkin.paths import Paths
from firkin.settings import EngineChoice


class Report(msgspec.Struct, frozen=True):
    """All checks and what follows; `ok` says that machines can run."""

    ok: bool
    engine: str
    why: str
    kvm: KvmVerdict
    checks: tuple[Check, ...]


def chosen_engine(paths: Paths) -> str:
    """`firecracker` or `firkin-vmm`, by the verdict remembered since boot; the first call measures (about 0.2 s)."""
    return pick_engine(kvm.verdict(_kvm_cache(paths)), firecracker=shutil.which("firecracker") is not None)


def pick_engine(verdict: KvmVerdict, *, firecracker: bool) -> str:
    """Firecracker needs KVM that runs kernels, and the program; else firkin-vmm."""
    native = verdict.kind is Kvm.NATIVE
    return str(EngineChoice.FIRECRACKER if native and firecracker else EngineChoice.FIRKIN_VMM)


def diagnose(host: Host, paths: Paths) -> Report:
    """Look at everything. Changes nothing but the remembered KVM verdict."""
    verdict, firecracker = host.kvm(), host.program("firecracker")
    engine = pick_engine(verdict, firecracker=bool(firecracker))
    case = Case(host, paths.home, verdict, engine)
    checks = tuple(check for look in CHECKS for check in look(case))
    ok = all(check.status is not Status.FAIL for check in checks)
    return Report(ok, engine, _why(verdict, firecracker), verdict, checks)


def local_host(paths: Paths) -> Host:
    """The host we run on."""
    from firkin.host.facts import LocalHost

    return LocalHost(_kvm_cache(paths))


def _kvm_cache(paths: Paths) -> Path:
    return paths.run / "kvm.json"


def _why(verdict: KvmVerdict, firecracker: str) -> str:
    if verdict.kind is Kvm.NATIVE and not firecracker:
        return f"{verdict.why}, but there is no firecracker program on the PATH"
    return verdict.why
