"""/boot-source: the kernel, its initrd and its command line."""

from __future__ import annotations

from typing import ClassVar

from firkin.fcapi.wire import Wire

DEFAULT_BOOT_ARGS = "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce"


class BootSource(Wire, frozen=True, kw_only=True):
    """PUT /boot-source. Kernel and initrd are opened when the call comes."""

    rust: ClassVar[str] = "BootSourceConfig"

    kernel_image_path: str
    initrd_path: str | None = None
    boot_args: str | None = None
