"""What goes wrong, in Firecracker's exact words: faults of the API, and system errors as Rust prints them."""

from __future__ import annotations

import os
from enum import Enum

from firkin.errors import EngineError


class Area(Enum):
    """Which resource refuses: the start of its message over the API, and when it comes from a config file."""

    BALLOON = ("Balloon config error: ", "Balloon device error: ")
    BALLOON_UPDATE = ("Balloon update error: ", "")
    BOOT_SOURCE = ("Boot source error: ", "Boot source error: ")
    CPU = ("Configure CPU error: ", "CPU config error: ")
    CREATE_SNAPSHOT = ("Create snapshot error: ", "")
    DRIVE = ("Drive config error: ", "Block device error: ")
    ENTROPY = ("Entropy device error: ", "Entropy device error: ")
    LOAD_SNAPSHOT = ("Load snapshot error: ", "")
    LOGGER = ("Logger error: ", "Logger error: ")
    MACHINE = ("Machine config error: ", "VM config error: ")
    MEMORY_HOTPLUG = ("Memory hotplug config error: ", "Memory hotplug config error: ")
    MEMORY_HOTPLUG_UPDATE = ("Memory hotplug update error: ", "")
    METRICS = ("Metrics error: ", "Metrics error: ")
    MMDS = ("MMDS error: ", "MMDS error: ")
    MMDS_CONFIG = ("MMMDS config error: ", "MMDS config error: ")  # three M, as upstream
    MMDS_LIMIT = ("MMDS limit exceeded error: ", "MMDS error: ")
    NETWORK = ("Network config error: ", "Network device error: ")
    PMEM = ("Pmem config error: ", "Pmem device error: ")
    START = ("Start microvm error: ", "")
    VM = ("Internal VMM error: ", "")
    VSOCK = ("Vsock config error: ", "Vsock device error: ")
    NONE = ("", "")


class Fault(EngineError):
    """A request that the engine refuses. Its text is the `fault_message`."""

    def __init__(self, text: str, area: Area = Area.NONE) -> None:
        super().__init__(area.value[0] + text)
        self.reason = text
        self.in_file = area.value[1] + text


class TooLarge(Fault):
    """A fault that is answered with 413."""


NOT_BEFORE_START = "The requested operation is not supported before starting the microVM."
NOT_AFTER_START = "The requested operation is not supported after starting the microVM."
PCI_NOT_ENABLED = "PCI is not enabled"
NO_DEVICE = "Failed perform action on device: Device not found"
BODY_IN_GET = "GET request cannot have a body."
EMPTY_BODY = {"PUT": "Empty PUT request.", "PATCH": "Empty PATCH request.", "DELETE": "Empty Delete request."}
EMPTY_ID = "The ID cannot be empty."
BAD_ID = "API Resource IDs can only contain alphanumeric characters and underscores."
MMDS_NOT_INITIALIZED = "The MMDS data store is not initialized."
MMDS_TOO_LARGE = "The MMDS patch request doesn't fit."  # of a PUT as well
ID_MISMATCH = "The id from the path does not match the id from the body!"
BAD_VCPUS = (
    "The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number if SMT is enabled."
)
BAD_MEMORY = "The memory size (MiB) is either 0, or not a multiple of the configured page size."

# Firecracker is linked with musl: where its words differ from glibc's, clients know musl's.
_MUSL = {12: "Out of memory", 16: "Resource busy", 24: "No file descriptors available", 98: "Address in use"}


# Rust's names for the commonest.
_KINDS = {
    1: "PermissionDenied",
    2: "NotFound",
    13: "PermissionDenied",
    17: "AlreadyExists",
    20: "NotADirectory",
    21: "IsADirectory",
    36: "InvalidFilename",
    40: "FilesystemLoop",
    98: "AddrInUse",
}


def os_text(error: OSError) -> str:
    """`No such file or directory (os error 2)`."""
    number = error.errno or 0
    return f"{_words(number)} (os error {number})"


def os_debug(error: OSError) -> str:
    """As Rust shows a system error to programmers."""
    number = error.errno or 0
    return f'Os {{ code: {number}, kind: {_KINDS.get(number, "Uncategorized")}, message: "{_words(number)}" }}'


def _words(number: int) -> str:
    return _MUSL.get(number, os.strerror(number))
