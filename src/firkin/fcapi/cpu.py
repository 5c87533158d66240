"""/cpu-config: a custom CPU template, bit by bit."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from firkin.fcapi.wire import Wire

U32 = Annotated[int, Meta(ge=0, le=2**32 - 1)]


class CpuidRegister(Wire, frozen=True, kw_only=True):
    """One register of a CPUID leaf; `bitmap` is `0b` and 32 of 0, 1 and x."""

    register: str
    bitmap: str


class CpuidModifier(Wire, frozen=True, kw_only=True):
    """One CPUID leaf; numbers are strings, `0x` or `0b`."""

    leaf: str
    subleaf: str
    flags: U32
    modifiers: tuple[CpuidRegister, ...]


class MsrModifier(Wire, frozen=True, kw_only=True):
    """One model-specific register."""

    addr: str
    bitmap: str


class CpuConfig(Wire, frozen=True, kw_only=True):
    """PUT /cpu-config on x86-64."""

    kvm_capabilities: tuple[str, ...] = ()
    cpuid_modifiers: tuple[CpuidModifier, ...] = ()
    msr_modifiers: tuple[MsrModifier, ...] = ()
