"""One tiny guest on /dev/kvm: 64-bit code that does what every kernel does and tells after each step.

Started by `kvm.measure` as `python -I -m firkin.host.kvm_trial`; writes one `Trial` as JSON per line and step.
Structures and numbers: Linux' include/uapi/linux/kvm.h and arch/x86/include/uapi/asm/kvm.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from firkin.host.kvm import DEVICE, OPEN_DEVICE, Step, Trial

# Last resort if the parent dies: the default action of SIGALRM ends us.
LIFETIME_S = 10

CREATE_VM, GET_VCPU_MMAP_SIZE, GET_API_VERSION = 0xAE01, 0xAE04, 0xAE00
GET_SUPPORTED_CPUID = 0xC008AE05
CREATE_VCPU, SET_USER_MEMORY_REGION, SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
RUN, SET_REGS, GET_SREGS, SET_SREGS, SET_CPUID2 = 0xAE80, 0x4090AE82, 0x8138AE83, 0x4138AE84, 0x4008AE90
API_VERSION = 12
EXIT_IO, EXIT_INTERNAL_ERROR = 2, 17

# Guest-physical layout, all inside one identity-mapped page of 2 MiB.
MEMORY_SIZE = 2 << 20
PML4, PDPT, PD, GDT, IDT, XSAVE_AREA, TSS, CODE, HANDLER, STACK = (
    0x1000, 0x2000, 0x3000, 0x4000, 0x5000, 0x6000, 0x7000, 0x8000, 0x9000, 0x10000,
)  # fmt: skip
CODE_SELECTOR, DATA_SELECTOR, TSS_SELECTOR = 0x08, 0x10, 0x18
INT3_VECTOR = 3

STEP_PORT, LOOP_PORT = 0xF1, 0xF2
STEPS = tuple(Step)

CR0 = 0x80050033  # PG AM WP NE ET MP PE
CR4, CR4_OSXSAVE = 0x620, 1 << 18  # OSXMMEXCPT OSFXSR PAE
EFER = 0x500  # LMA LME
XSAVE_FLAG = 1 << 26  # CPUID leaf 1, ECX

SEGMENT = struct.Struct("<QIH10B")
RUN_REASON, RUN_DETAIL = 8, 32  # offsets in struct kvm_run

LOOP_FIRST, LOOP_LAST, LOOP_LONG_ENOUGH_S, LOOP_REPEATS = 4096, 1 << 27, 0.005, 3


def report(step: Step) -> bytes:
    """mov al, step; out STEP_PORT, al"""
    return bytes((0xB0, STEPS.index(step), 0xE6, STEP_PORT))


# again: in eax, LOOP_PORT; test eax, eax; jz done; mov ecx, eax; spin: dec ecx; jnz spin; jmp again; done:
# The host answers `in` with a count, so the time between two of them is that of the loop alone; zero ends it.
COUNTED_LOOP = bytes((0xE5, LOOP_PORT)) + bytes.fromhex("85c0 7408 89c1 ffc9 75fc ebf2")
XSETBV = bytes.fromhex("31c9 31d2 b803000000 0f01d1")  # ecx = edx = 0, eax = 3 (x87 and SSE)
POINT_AT_AREA = b"\xbb" + XSAVE_AREA.to_bytes(4, "little") + bytes.fromhex("31d2 b803000000")  # rbx, edx:eax = 3
XRSTOR = POINT_AT_AREA + bytes.fromhex("0fae2b")  # [rbx]; zeroes there mean the initial state
XSAVE = POINT_AT_AREA + bytes.fromhex("0fae23")
IRETQ = bytes.fromhex("48cf")
INT3 = b"\xcc"
HLT = b"\xf4"


def program(*, xsave: bool) -> tuple[tuple[Step, bytes], ...]:
    """Steps and their code; the INT3's own report comes from its handler."""
    extended = ((Step.XSETBV, XSETBV), (Step.XRSTOR, XRSTOR), (Step.XSAVE, XSAVE)) if xsave else ()
    steps = ((Step.START, b""), (Step.LOOP, COUNTED_LOOP), *extended)
    plain = tuple((step, code + report(step)) for step, code in steps)
    return (*plain, (Step.INT3, INT3), (Step.IRETQ, report(Step.IRETQ) + HLT))


def memory_image(*, xsave: bool) -> dict[int, bytes]:
    """Address → content of everything the guest needs."""
    writable_present, big_page = 0x3, 0x80
    gate = struct.pack("<HHBBHII", HANDLER, CODE_SELECTOR, 0, 0x8E, 0, 0, 0)
    tss = struct.pack("<HHBBBBII", 0x67, TSS, 0, 0x8B, 0, 0, 0, 0)
    return {
        PML4: struct.pack("<Q", PDPT | writable_present),
        PDPT: struct.pack("<Q", PD | writable_present),
        PD: struct.pack("<Q", writable_present | big_page),
        GDT: struct.pack("<3Q", 0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF) + tss,
        IDT + INT3_VECTOR * 16: gate,
        CODE: b"".join(code for _, code in program(xsave=xsave)),
        HANDLER: report(Step.INT3) + IRETQ,
    }


def special_registers(sregs: bytes, *, xsave: bool) -> bytes:
    """struct kvm_sregs for long mode, keeping of the old one what is not ours (APIC base, pending interrupts)."""
    code = SEGMENT.pack(0, 0xFFFFFFFF, CODE_SELECTOR, 11, 1, 0, 0, 1, 1, 1, 0, 0, 0)
    data = SEGMENT.pack(0, 0xFFFFFFFF, DATA_SELECTOR, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
    task = SEGMENT.pack(TSS, 0x67, TSS_SELECTOR, 11, 1, 0, 0, 0, 0, 0, 0, 0, 0)
    no_ldt = SEGMENT.pack(0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0)
    tables = struct.pack("<QH6xQH6x", GDT, 0x27, IDT, 0xFFF)
    cr4 = CR4 | (CR4_OSXSAVE if xsave else 0)
    control = struct.pack("<6Q", CR0, 0, PML4, cr4, 0, EFER)
    ours = code + data * 5 + task + no_ldt + tables + control  # cs, ds es fs gs ss, tr, ldt, ...
    return ours + sregs[len(ours) :]


class Teller:
    """Keeps the trial so far and writes it down at every change."""

    def __init__(self) -> None:
        self.trial = Trial()

    def note(self, **changes: object) -> None:
        self.trial = msgspec.structs.replace(self.trial, **changes)
        sys.stdout.buffer.write(msgspec.json.encode(self.trial) + b"\n")
        sys.stdout.buffer.flush()

    @contextmanager
    def call(self, name: str) -> Iterator[None]:
        """Name the call that failed; the error goes on."""
        try:
            yield
        except OSError as error:
            self.note(failed_call=name, errno=error.errno)
            raise


def supported_cpuid(kvm: int) -> tuple[bytearray, bool]:
    """struct kvm_cpuid2 as KVM offers it, and whether XSAVE is in it."""
    room = 256
    cpuid = bytearray(8 + 40 * room)
    struct.pack_into("<I", cpuid, 0, room)
    fcntl.ioctl(kvm, GET_SUPPORTED_CPUID, cpuid)
    count = struct.unpack_from("<I", cpuid)[0]
    leaves = (struct.unpack_from("<7I", cpuid, 8 + 40 * index) for index in range(count))
    return cpuid, any(leaf[0] == 1 and leaf[5] & XSAVE_FLAG for leaf in leaves)


def build_vm(kvm: int, teller: Teller, *, xsave: bool) -> tuple[int, mmap.mmap]:
    """A VM with its memory filled. The mapping must outlive the VM."""
    with teller.call("KVM_CREATE_VM"):
        vm = fcntl.ioctl(kvm, CREATE_VM, 0)
    memory = mmap.mmap(-1, MEMORY_SIZE)
    for address, content in memory_image(xsave=xsave).items():
        memory[address : address + len(content)] = content
    at = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    with teller.call("KVM_SET_USER_MEMORY_REGION"):
        fcntl.ioctl(vm, SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, MEMORY_SIZE, at))
    with teller.call("KVM_SET_TSS_ADDR"):  # Intel's CPUs want three pages away from guest memory
        fcntl.ioctl(vm, SET_TSS_ADDR, 0x0FFBD000)
    return vm, memory


def build_vcpu(vm: int, cpuid: bytearray, teller: Teller, *, xsave: bool) -> int:
    """A vCPU about to execute CODE in long mode."""
    with teller.call("KVM_CREATE_VCPU"):
        vcpu = fcntl.ioctl(vm, CREATE_VCPU, 0)
    with teller.call("KVM_SET_CPUID2"):
        fcntl.ioctl(vcpu, SET_CPUID2, cpuid)
    with teller.call("KVM_SET_SREGS"):
        sregs = fcntl.ioctl(vcpu, GET_SREGS, bytes(312))
        fcntl.ioctl(vcpu, SET_SREGS, special_registers(sregs, xsave=xsave))
    with teller.call("KVM_SET_REGS"):
        rsp, rip, rflags = STACK, CODE, 0x2
        fcntl.ioctl(vcpu, SET_REGS, struct.pack("<6Q2Q8Q2Q", *[0] * 6, rsp, 0, *[0] * 8, rip, rflags))
    return vcpu


class LoopClock:
    """Answers the guest's question for a count, growing it until one loop takes long enough to be timed."""

    def __init__(self) -> None:
        self.best_hz = 0.0
        self._count = LOOP_FIRST
        self._repeats = LOOP_REPEATS
        self._started: float | None = None

    def next_count(self) -> int:
        """How often to loop now; 0 when the rate is known."""
        if self._started is not None:
            self._ended(time.perf_counter() - self._started)
        self._started = time.perf_counter()
        return self._count if self._repeats else 0

    def _ended(self, elapsed_s: float) -> None:
        self.best_hz = max(self.best_hz, self._count / elapsed_s)
        if elapsed_s >= LOOP_LONG_ENOUGH_S or self._count >= LOOP_LAST:
            self._repeats -= 1
        else:
            self._count *= 8


def run_guest(vcpu: int, run: mmap.mmap, teller: Teller, *, xsave: bool) -> None:
    """Enter the guest until it is done or stops where it should not."""
    order = [step for step, _ in program(xsave=xsave)]
    clock = LoopClock()
    teller.note(attempting=order[0])
    while teller.trial.attempting is not None:
        with teller.call("KVM_RUN"):
            fcntl.ioctl(vcpu, RUN, 0)
        reason = struct.unpack_from("<I", run, RUN_REASON)[0]
        if reason != EXIT_IO:
            suberror = struct.unpack_from("<I", run, RUN_DETAIL)[0] if reason == EXIT_INTERNAL_ERROR else None
            teller.note(exit_reason=reason, suberror=suberror)
            return
        port, data = struct.unpack_from("<2xHxxxxQ", run, RUN_DETAIL)
        if port == LOOP_PORT:
            struct.pack_into("<I", run, data, clock.next_count())
        else:
            teller.note(**_progress(order, STEPS[run[data]], clock))
    teller.note(finished=True)


def _progress(order: list[Step], reached: Step, clock: LoopClock) -> dict[str, object]:
    after = order[order.index(reached) + 1 :]
    return {"reached": reached, "attempting": after[0] if after else None, "loop_rate_hz": clock.best_hz}


def try_kvm(teller: Teller) -> None:
    """The whole trial; what fails is noted before the OSError leaves. The process's end closes everything."""
    with teller.call(OPEN_DEVICE):
        kvm = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    if fcntl.ioctl(kvm, GET_API_VERSION, 0) != API_VERSION:
        teller.note(failed_call="KVM_GET_API_VERSION", errno=95)
        return
    with teller.call("KVM_GET_SUPPORTED_CPUID"):
        cpuid, xsave = supported_cpuid(kvm)
    vm, memory = build_vm(kvm, teller, xsave=xsave)
    vcpu = build_vcpu(vm, cpuid, teller, xsave=xsave)
    run = mmap.mmap(vcpu, fcntl.ioctl(kvm, GET_VCPU_MMAP_SIZE, 0))
    run_guest(vcpu, run, teller, xsave=xsave)
    del memory


def main() -> None:
    """Entry point of the child."""
    signal.alarm(LIFETIME_S)
    try:
        try_kvm(Teller())
    except OSError:
        sys.exit(1)  # noted already


if __name__ == "__main__":
    main()
