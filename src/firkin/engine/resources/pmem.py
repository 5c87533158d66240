"""Persistent memory: QEMU's microvm maps no file into a guest, so what Firecracker would take is refused here."""

from __future__ import annotations

import os

from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.drives import Drive
from firkin.fcapi.pmem import Pmem

_TWO_ROOTS = "Attempt to add pmem as a root device while the root device defined as a block device"


def refuse(config: Pmem, root: Drive | None) -> None:
    """Raises: Fault, in Firecracker's words where it would refuse too."""
    if config.root_device and root is not None:
        raise Fault(_TWO_ROOTS, Area.PMEM)
    create = "Unable to create the virtio-pmem device: "
    try:
        os.close(os.open(config.path_on_host, (os.O_RDONLY if config.read_only else os.O_RDWR) | os.O_CLOEXEC))
    except OSError as error:
        raise Fault(f"{create}Error accessing backing file: {os_text(error)}", Area.PMEM) from error
    raise Fault(f"{create}not supported by this engine; a drive with is_read_only can be shared too.", Area.PMEM)
