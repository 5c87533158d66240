"""A person's terminal on a machine's serial console."""

from __future__ import annotations

import os
import select
from pathlib import Path

import click

from firkin.cli.terminal import raw_mode
from firkin.errors import EngineError, UsageError
from firkin.host.watch import FolderWatch
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.vmm import console as consoles
from firkin.vmm.rotated import RotatedLog

DETACH_KEYS = "ctrl-p,ctrl-q"  # as in docker
CONTROL_SIGNS = "@[\\]^_"
LOOK_S = 0.25  # how often a silent machine is asked whether it lives
CHUNK = 65536
STDIN, STDOUT = 0, 1


class DetachKeys:
    """Looks for a sequence of keys in what is typed, however it is cut into reads."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._held = b""

    def feed(self, keys: bytes) -> tuple[bytes, bool]:
        """What to pass on, and whether the sequence is complete. What may be its beginning is held back."""
        keys, self._held = self._held + keys, b""
        before, found, _ = keys.partition(self._sequence)
        if found:
            return before, True
        for size in range(min(len(keys), len(self._sequence) - 1), 0, -1):
            if keys.endswith(self._sequence[:size]):
                self._held = keys[-size:]
                return keys[:-size], False
        return keys, False


def parse_keys(text: str) -> bytes:
    """`ctrl-p,ctrl-q` as docker writes it: letters, or ctrl- with a letter or one of @ [ \\ ] ^ _.

    Raises:
        UsageError: it is something else.
    """
    return bytes(_key(word) for word in (text or DETACH_KEYS).split(","))


def _key(word: str) -> int:
    name = word.removeprefix("ctrl-")
    if len(name) == 1 and name.isascii():
        if name == word and name.isprintable():
            return ord(name)
        if name.isalpha() or name in CONTROL_SIGNS:
            return ord(name.upper()) & 0x1F
    raise UsageError(f"detach keys: {word!r} is no key", hint=f"--detach-keys {DETACH_KEYS}")


def attach(machine: Machine, *, from_start: bool = False, detach: bytes | None = None) -> bool:
    """Connect this terminal to the guest's ttyS0 until the machine ends (False) or the user detaches (True).

    What stands on the console comes first: all with `from_start`, else a screenful where stdout is a terminal.
    """
    engine = machine.process()
    with (
        FolderWatch(machine.console_log.parent) as watch,
        RotatedLog(machine.console_log, back=None if from_start else CHUNK) as log,
        _Keyboard(machine.run_folder, detach or parse_keys(DETACH_KEYS)) as keyboard,
        raw_mode(STDIN),
    ):
        if not from_start:
            _write(_screenful(log.read_all()))
        while True:
            more = consoles.speaks(engine, machine.run_folder)  # asked before the reading, so that we miss no last word
            if data := log.read_all():
                _write(data)
            elif not more:
                return False
            if keyboard.serve(watch, 0 if data else LOOK_S):
                return True


def _screenful(data: bytes) -> bytes:
    if not os.isatty(STDOUT):
        return b""
    rows = max(1, os.get_terminal_size(STDOUT).lines - 1)
    return b"".join(data.splitlines(keepends=True)[-rows:])


def _write(data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(STDOUT, view) :]


class _Keyboard:
    """Our stdin on the guest's console. The end of our input is not the end of the machine."""

    def __init__(self, run: Path, detach: bytes) -> None:
        try:
            self._line = os.open(run / consoles.INPUT, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise EngineError(f"the console takes no input: {error.strerror}", hint="firkin ls") from error
        self._keys = DetachKeys(detach) if os.isatty(STDIN) else None
        self._ended = False
        self._waiting = b""  # what the guest's line had no room for

    def __enter__(self) -> _Keyboard:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._line)

    def serve(self, watch: FolderWatch, timeout_s: float) -> bool:
        """Pass keys on until the log grew, or for `timeout_s` seconds. Whether the user detached."""
        sources = [] if self._ended or self._is_full() else [STDIN]
        if watch.fd is None:
            timeout_s = min(timeout_s, 0.02)
        else:
            sources.append(watch.fd)
        ready, _, _ = select.select(sources, [self._line] if self._waiting else [], [], timeout_s)
        watch.forget()
        detached = STDIN in ready and self._read()
        self._send()
        return detached

    def _is_full(self) -> bool:
        """A program waits until the guest reads; a person must always be able to detach."""
        return self._keys is None and bool(self._waiting)

    def _read(self) -> bool:
        try:
            keys = os.read(STDIN, CHUNK)
        except OSError:  # the terminal is gone
            return True
        self._ended = not keys
        keys, detached = self._keys.feed(keys) if self._keys else (keys, False)
        self._waiting = (self._waiting + keys)[:CHUNK]  # beyond that keys are lost, as on a serial line
        return detached

    def _send(self) -> None:
        try:
            self._waiting = self._waiting[os.write(self._line, self._waiting) :] if self._waiting else b""
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._waiting = b""  # the machine ended


@click.command()
@click.option("--detach-keys", default=DETACH_KEYS, show_default=True, metavar="KEYS", help="What ends the session.")
@click.argument("name")
def console(name: str, detach_keys: str) -> None:
    """Attach to a machine's serial console.

    KEYS are letters, or ctrl- with a letter or one of @[\\]^_, with commas between them.
    """
    with Firkin() as firkin:
        machine = firkin.machine(name)
        detach = parse_keys(detach_keys)
        machine.process()
        shown = os.isatty(STDIN) and os.isatty(STDOUT)
        if shown:
            click.echo(f"attached to ttyS0 of {machine.name}; {detach_keys or DETACH_KEYS} detaches", err=True)
        detached = attach(machine, detach=detach)
        if shown:
            click.echo(f"\n{'detached from' if detached else 'ended:'} {machine.name}", err=True)
