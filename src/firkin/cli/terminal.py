"""The terminal and the guest's console: raw mode with a way back, attach and detach, follow a log."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from firkin.manager.machine import Machine
from firkin.vmm import boot

DETACH = b"\x10\x11"  # ctrl-p ctrl-q, as in docker
POLL_S = 0.01
CHUNK = 65536


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Hand every key through unread while this scope runs; does nothing where `fd` is no terminal."""
    if not os.isatty(fd):
        yield
        return
    former = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, former)


def attach(machine: Machine, *, from_start: bool = False) -> bool:
    """Connect this terminal to the guest's ttyS0 until the machine ends (False) or the user detaches (True).

    The console is two files that the engine holds open: a FIFO that it reads and a log that it appends to.
    """
    engine = machine.process()
    keyboard: int | None = sys.stdin.fileno()
    fifo = os.open(machine.run_folder / boot.CONSOLE_INPUT, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with machine.console_log.open("rb") as log, raw_mode(sys.stdin.fileno()):
        if not from_start:
            log.seek(0, os.SEEK_END)
        try:
            while True:
                alive = engine.alive()
                _copy(log.read(CHUNK))
                if not alive and not _copy(log.read()):
                    return False
                if keyboard is None:
                    select.select([], [], [], POLL_S)
                elif select.select([keyboard], [], [], POLL_S)[0]:
                    keys = os.read(keyboard, CHUNK)
                    if DETACH in keys:
                        return True
                    _type(fifo, keys)
                    keyboard = keyboard if keys else None  # end of our input is not the end of the machine
        finally:
            os.close(fifo)


def _type(fifo: int, keys: bytes) -> None:
    """Pass keys on. A guest that does not read fills the pipe; then keys are lost, as on a real serial line."""
    try:
        os.write(fifo, keys)
    except (BlockingIOError, BrokenPipeError):
        return


def _copy(data: bytes) -> bool:
    if data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    return bool(data)


def copy_log(machine: Machine, path: Path, *, follow: bool) -> None:
    """Print a log; with `follow` go on while the machine runs."""
    process = machine.record.process
    with path.open("rb") as log:
        while _copy(log.read(CHUNK)) or (follow and process is not None and process.alive()):
            select.select([], [], [], 0 if log.tell() < path.stat().st_size else POLL_S)
        _copy(log.read())
