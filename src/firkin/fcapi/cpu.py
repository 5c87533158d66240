"""/cpu-config: a custom CPU template, bit by bit. Inside of it unknown fields are ignored, as upstream."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from firkin.fcapi.texts import Bitmap32, Bitmap64, KvmCapability, RegisterName, TemplateU32
from firkin.fcapi.wire import U32, Wire


class CpuidRegister(msgspec.Struct, frozen=True, kw_only=True):
    """One register of a CPUID leaf; `bitmap` is `0b` and 32 of 0, 1 and x."""

    rust: ClassVar[str] = "CpuidRegisterModifier"

    register: RegisterName
    bitmap: Bitmap32


class CpuidModifier(msgspec.Struct, frozen=True, kw_only=True):
    """One CPUID leaf; numbers are strings, `0x` or `0b`."""

    rust: ClassVar[str] = "CpuidLeafModifier"

    leaf: TemplateU32
    subleaf: TemplateU32
    flags: U32
    modifiers: tuple[CpuidRegister, ...]


class MsrModifier(msgspec.Struct, frozen=True, kw_only=True):
    """One model-specific register."""

    rust: ClassVar[str] = "RegisterModifier"

    addr: TemplateU32
    bitmap: Bitmap64


class CpuConfig(Wire, frozen=True, kw_only=True):
    """PUT /cpu-config on x86-64."""

    rust: ClassVar[str] = "CustomCpuTemplate"

    kvm_capabilities: tuple[KvmCapability, ...] = ()
    cpuid_modifiers: tuple[CpuidModifier, ...] = ()
    msr_modifiers: tuple[MsrModifier, ...] = ()
