"""Drives: their backing files, opened when the calls come, in the order that the guest sees them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.drives import Drive, IoEngine

_NO_BACKEND = "Unable to create the virtio block device: Invalid block config."


@dataclass(frozen=True, slots=True)
class OpenDrive:
    """A drive and its open backing file."""

    config: Drive
    fd: int
    is_block_device: bool


class Drives:
    """All drives of the machine to be; the root device comes first, the rest in PUT order."""

    def __init__(self) -> None:
        self._drives: list[OpenDrive] = []

    def __iter__(self) -> Iterator[OpenDrive]:
        return iter(self._drives)

    def __len__(self) -> int:
        return len(self._drives)

    @property
    def root(self) -> Drive | None:
        return next((drive.config for drive in self if drive.config.is_root_device), None)

    def put(self, config: Drive) -> None:
        """Add a drive, or replace the one with its id.

        Raises:
            Fault: a second root device, or a file that cannot be opened.
        """
        config = _with_defaults(config)
        if config.is_root_device and self.root is not None and self.root.drive_id != config.drive_id:
            raise Fault("A root block device already exists!", Area.DRIVE)
        drive = open_drive(config)
        place = next((at for at, each in enumerate(self) if each.config.drive_id == config.drive_id), None)
        if place is None:
            self._drives.append(drive)
        else:
            os.close(self._drives[place].fd)
            self._drives[place] = drive
        self._drives.sort(key=lambda each: not each.config.is_root_device)  # stable

    def close(self) -> None:
        for drive in self:
            os.close(drive.fd)


def open_drive(config: Drive) -> OpenDrive:
    """Raises: Fault, when the file cannot be opened."""
    path = config.path_on_host or ""
    try:
        fd = os.open(path, (os.O_RDONLY if config.is_read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        what = "Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: "
        raise Fault(f"{what}{os_text(error)} {path}", Area.DRIVE) from error
    return OpenDrive(config, fd, stat.S_ISBLK(os.fstat(fd).st_mode))


def _with_defaults(config: Drive) -> Drive:
    if config.path_on_host is None or config.socket is not None:
        # vhost-user needs a second process that serves the disk; QEMU's microvm could, this engine does not.
        raise Fault(_NO_BACKEND, Area.DRIVE)
    return msgspec.structs.replace(
        config, is_read_only=bool(config.is_read_only), io_engine=config.io_engine or IoEngine.SYNC
    )
