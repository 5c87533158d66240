"""The boot source: kernel and initrd, opened when the call comes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from firkin.engine import kernel
from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.boot import BootSource


@dataclass(frozen=True, slots=True)
class Boot:
    """A boot source and its open files."""

    config: BootSource
    kernel_fd: int
    initrd_fd: int | None
    facts: kernel.KernelFacts

    def close(self) -> None:
        for fd in (self.kernel_fd, self.initrd_fd):
            if fd is not None:
                os.close(fd)


def open_boot(config: BootSource) -> Boot:
    """Raises: Fault, when kernel or initrd cannot be opened."""
    kernel_fd = _open(config.kernel_image_path, "The kernel file cannot be opened: ")
    initrd_fd = None
    try:
        if config.initrd_path is not None:
            what = "The initrd file cannot be opened due to invalid path or invalid permissions. "
            initrd_fd = _open(config.initrd_path, what)
    except Fault:
        os.close(kernel_fd)
        raise
    kernel_fd, facts = _look_into(kernel_fd)
    return Boot(config, kernel_fd, initrd_fd, facts)


def _look_into(kernel_fd: int) -> tuple[int, kernel.KernelFacts]:
    """The kernel, unpacked where its file is a bzImage. What is none is told at the start, as upstream does."""
    try:
        unpacked = kernel.unpack(kernel_fd)
        if unpacked is not None:
            os.close(kernel_fd)
            kernel_fd = unpacked
        return kernel_fd, kernel.inspect(kernel_fd)
    except OSError:  # a folder, for instance
        return kernel_fd, kernel.NO_KERNEL


def _open(path: str, what: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise Fault(what + os_text(error), Area.BOOT_SOURCE) from error
