"""Drives of a running guest: another file, other limits, and what was read and written."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator

import msgspec

from firkin.engine import throttle
from firkin.engine.faults import NO_DEVICE, Area, Fault
from firkin.engine.live.burst import Bursts
from firkin.engine.live.monitor import Monitor, Timer
from firkin.engine.plan import plan_disk
from firkin.engine.qemu_disks import SECTOR, Disk, DiskNames, file_node, throttle_node
from firkin.engine.resources.drives import Drives, OpenDrive, open_file
from firkin.errors import EngineError
from firkin.fcapi.drives import DrivePatch

_COUNTERS = {
    "read_bytes": "rd_bytes",
    "write_bytes": "wr_bytes",
    "read_count": "rd_operations",
    "write_count": "wr_operations",
    "flush_count": "flush_operations",
}


class LiveDrives:
    """The guest's drives, by their place in the configuration."""

    def __init__(self, timer: Timer, monitor: Monitor, drives: Drives) -> None:
        self._monitor = monitor
        self._drives = drives
        self._bursts = Bursts(timer, monitor)

    def begin(self) -> None:
        """Watch the one-time bursts of the configured limits."""
        for number, drive in enumerate(self._drives):
            self._bursts.watch(number, drive.config.rate_limiter)

    def patch(self, body: DrivePatch) -> None:
        """Change what `body` names and nothing else.

        Raises:
            Fault: no such drive, a file that cannot be opened, or a kind of drive that cannot do that.
            EngineError: QEMU did not follow.
        """
        number = self._drives.place(body.drive_id)
        if number is None:
            raise _cannot(NO_DEVICE)
        drive = self._drives[number]
        changes_nothing = body.path_on_host is None and body.rate_limiter is None
        if drive.is_vhost_user != changes_nothing:
            raise _cannot("Block: Running method expected different backend.")
        if body.path_on_host is not None:
            self._replace_file(number, drive, body.path_on_host)
        if body.rate_limiter is not None:
            self._limit(number, body)

    def counters(self) -> dict[str, dict[str, int]]:
        """By drive id: bytes and requests since the start, under Firecracker's names. Raises: EngineError."""
        by_device = {each.get("qdev"): each["stats"] for each in self._monitor.execute("query-blockstats")}
        found = {}
        for number, drive in enumerate(self._drives):
            if stats := by_device.get(DiskNames(number).device):
                found[drive.config.drive_id] = {ours: int(stats[theirs]) for ours, theirs in _COUNTERS.items()}
        return found

    def _replace_file(self, number: int, drive: OpenDrive, path: str) -> None:
        config = msgspec.structs.replace(drive.config, path_on_host=path)
        try:
            opened = open_file(config, generation=drive.generation + 1)
        except Fault as fault:
            raise _cannot(f"Block: {fault}") from fault
        try:
            Swap(self._monitor, number, drive).to(opened)
        finally:
            os.close(opened.fd)
        self._drives.replace(number, opened)

    def _limit(self, number: int, body: DrivePatch) -> None:
        assert body.rate_limiter is not None
        drive = self._drives[number]
        limiter = throttle.patched(drive.config.rate_limiter, body.rate_limiter)
        limits = throttle.drive_limits(limiter, throttle.burst_of(limiter))
        self._monitor.execute("qom-set", path=f"/objects/{DiskNames(number).group}", property="limits", value=limits)
        self._bursts.watch(number, limiter)
        config = msgspec.structs.replace(drive.config, rate_limiter=limiter)
        self._drives.replace(number, dataclasses.replace(drive, config=config))


class Swap:
    """One drive's change from the file it has to another, without the guest losing a request."""

    def __init__(self, monitor: Monitor, number: int, old: OpenDrive) -> None:
        self._monitor = monitor
        self._names = DiskNames(number)
        self._old = old

    def to(self, new: OpenDrive) -> None:
        """Raises: EngineError, and then the old file is still in place."""
        old_node, new_node = (self._names.file(drive.generation) for drive in (self._old, new))
        self._add(new_node, plan_disk(new))
        unused = new_node
        try:
            if new.size == self._old.size:
                self._stand_on(new_node, self._old)
            else:
                self._announce(new.size, new_node, old_node)
            unused = old_node
        finally:
            self._monitor.execute("blockdev-del", node_name=unused)

    def _announce(self, size: int, new_node: str, old_node: str) -> None:
        # QEMU tells the guest of a new size only when it truncates a file. That shall never be the user's, and cannot
        # be one that is read-only: so the drive stands for a moment, its guest stopped, on an empty file of that size.
        with self._stopped(), self._empty_file(size) as empty_node:
            try:
                self._stand_on(empty_node)
                self._monitor.execute("block_resize", node_name=self._names.node, size=size - size % SECTOR)
                self._stand_on(new_node, self._old)
            except EngineError:
                self._stand_on(old_node, self._old)
                raise

    @contextlib.contextmanager
    def _stopped(self) -> Iterator[None]:
        running = self._monitor.execute("query-status")["running"]
        if running:
            self._monitor.execute("stop")
        try:
            yield
        finally:
            if running:
                self._monitor.execute("cont")

    @contextlib.contextmanager
    def _empty_file(self, size: int) -> Iterator[str]:
        node = f"{self._names.node}-empty"
        empty = os.memfd_create(node)
        try:
            os.ftruncate(empty, size - size % SECTOR)
            self._add(node, Disk(fd=empty))
        finally:
            os.close(empty)
        try:
            yield node
        finally:
            self._monitor.execute("blockdev-del", node_name=node)

    def _add(self, node: str, disk: Disk) -> None:
        fdset = self._monitor.execute("add-fd", fd=disk.fd)["fdset-id"]
        try:
            self._monitor.execute("blockdev-add", **file_node(node, fdset, disk))
        finally:
            # An open node keeps a copy of its own.
            self._monitor.execute("remove-fd", fdset_id=fdset)

    def _stand_on(self, node: str, drive: OpenDrive | None = None) -> None:
        read_only = bool(drive and drive.config.is_read_only)
        options = throttle_node(self._names, node, read_only=read_only)
        self._monitor.execute("blockdev-reopen", options=[options])


def _cannot(why: str) -> Fault:
    return Fault(f"Unable to patch the block device: {why} Please verify the request arguments.", Area.DRIVE)
