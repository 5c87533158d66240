"""Drives: their backing files, opened when the calls come, in the order that the guest sees them."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from firkin.engine import throttle
from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.drives import Drive, IoEngine

_CREATE = "Unable to create the virtio block device: "


@dataclass(frozen=True, slots=True)
class OpenDrive:
    """A drive and its open backing file, or its connection to the process that serves it."""

    config: Drive
    fd: int
    is_block_device: bool = False
    size: int = 0
    generation: int = 0  # how many files it had before this one

    @property
    def is_vhost_user(self) -> bool:
        return self.config.socket is not None

    def identity(self) -> tuple[int, int]:
        """Device and inode of the open file."""
        found = os.fstat(self.fd)
        return found.st_dev, found.st_ino


class Drives:
    """All drives of the machine; the root device comes first, the rest in PUT order."""

    def __init__(self) -> None:
        self._drives: list[OpenDrive] = []

    def __iter__(self) -> Iterator[OpenDrive]:
        return iter(self._drives)

    def __len__(self) -> int:
        return len(self._drives)

    def __getitem__(self, place: int) -> OpenDrive:
        return self._drives[place]

    @property
    def root(self) -> Drive | None:
        return next((drive.config for drive in self if drive.config.is_root_device), None)

    def place(self, drive_id: str) -> int | None:
        """Where the guest sees the drive: 0 is vda. None if there is no such drive."""
        return next((at for at, each in enumerate(self) if each.config.drive_id == drive_id), None)

    def put(self, config: Drive) -> None:
        """Add a drive, or replace the one with its id.

        Raises:
            Fault: a second root device, fields that exclude each other, or a file that cannot be opened.
        """
        place = self.place(config.drive_id)
        if config.is_root_device and self.root is not None and self.root.drive_id != config.drive_id:
            raise Fault("A root block device already exists!", Area.DRIVE)
        drive = _open(config)
        if place is None:
            self._drives.insert(0 if config.is_root_device else len(self), drive)
            return
        os.close(self[place].fd)
        self._drives[place] = drive
        if config.is_root_device:
            # As upstream: the two change places.
            self._drives[0], self._drives[place] = self._drives[place], self._drives[0]

    def replace(self, place: int, drive: OpenDrive) -> None:
        """The running guest has this one now."""
        self._drives[place] = drive

    def close(self) -> None:
        for drive in self:
            os.close(drive.fd)


def open_file(config: Drive, *, generation: int = 0) -> OpenDrive:
    """Raises: Fault, when the file cannot be opened; its text is what follows the action's name."""
    path = config.path_on_host or ""
    try:
        fd = os.open(path, (os.O_RDONLY if config.is_read_only else os.O_RDWR) | os.O_CLOEXEC)
    except OSError as error:
        raise _file_fault(error, path) from error
    try:
        is_block_device = stat.S_ISBLK(os.fstat(fd).st_mode)
        size = os.lseek(fd, 0, os.SEEK_END)
    except OSError as error:
        os.close(fd)
        raise _file_fault(error, path) from error
    return OpenDrive(config, fd, is_block_device, size, generation)


def _file_fault(error: OSError, path: str) -> Fault:
    return Fault(f"Virtio backend error: Error manipulating the backing file: {os_text(error)} {path}")


def _open(config: Drive) -> OpenDrive:
    of_file = (config.is_read_only, config.path_on_host, config.rate_limiter, config.io_engine)
    is_vhost_user = config.socket is not None and all(field is None for field in of_file)
    if not is_vhost_user and (config.socket is not None or config.path_on_host is None):
        raise Fault(f"{_CREATE}Invalid block config.", Area.DRIVE)
    try:
        return _connect(config) if is_vhost_user else open_file(_with_defaults(config))
    except Fault as fault:
        raise Fault(_CREATE + str(fault), Area.DRIVE) from fault


def _connect(config: Drive) -> OpenDrive:
    backend = socket.socket(socket.AF_UNIX)
    try:
        backend.connect(config.socket or "")
    except OSError as error:
        backend.close()
        what = "Vhost user backend error: Vhost-user error: Failed to connect to UDS Unix stream: "
        raise Fault(what + os_text(error)) from error
    return OpenDrive(config, backend.detach())


def _with_defaults(config: Drive) -> Drive:
    return msgspec.structs.replace(
        config,
        is_read_only=bool(config.is_read_only),
        io_engine=config.io_engine or IoEngine.SYNC,
        rate_limiter=throttle.effective(config.rate_limiter),
    )
