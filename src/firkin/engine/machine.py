"""One QEMU from its start to its end: monitor, console and the process itself, as seen by the loop."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from firkin.engine import process, tsc
from firkin.engine.console import Console
from firkin.engine.faults import Area, Fault
from firkin.engine.journal import Journal
from firkin.engine.limiter import Bucket
from firkin.engine.live import Live
from firkin.engine.loop import READ, Loop
from firkin.engine.plan import Surroundings, inherited, plan_guest
from firkin.engine.privileges import can_become_nobody
from firkin.engine.qemu_argv import PROGRAM, qemu_argv
from firkin.engine.qmp import Message, Qmp, QmpClosed
from firkin.engine.resources import Resources, VsockDevice
from firkin.engine.resources.serial import SerialPort
from firkin.engine.serial_out import SerialOut
from firkin.errors import EngineError, FirkinError

_CONSOLE_BUFFER = 1 << 20

OnExit = Callable[[process.Ended], None]


class Machine:
    """A running guest. Made by `start`."""

    def __init__(
        self,
        loop: Loop,
        journal: Journal,
        child: process.Child,
        qmp: Qmp,
        console: Console | SerialOut,
        live: Live,
        on_exit: OnExit,
    ) -> None:
        self.live = live
        self._loop = loop
        self._journal = journal
        self._child = child
        self._qmp = qmp
        self._console = console
        self._on_exit = on_exit
        loop.watch(child.pidfd, READ, self._reap)
        loop.watch(child.stderr, READ, self._hear_stderr)
        loop.watch(qmp.fileno(), READ, self._hear_qmp)

    def pause(self) -> None:
        """Stop the virtual processors. Raises: EngineError."""
        self._qmp.execute("stop")

    def resume(self) -> None:
        """Let them run again. Raises: EngineError."""
        self._qmp.execute("cont")

    def kill(self) -> None:
        """End QEMU now and reap it; the loop hears nothing more."""
        self._child.kill()
        self._leave()
        self._child.wait()

    def _hear_qmp(self, _events: int) -> None:
        try:
            self._qmp.pump()
        except QmpClosed:
            self._loop.forget(self._qmp.fileno())  # it is ending; the pidfd tells when and how

    def _hear_stderr(self, _events: int) -> None:
        if not self._child.read_stderr():
            self._loop.forget(self._child.stderr)

    def _reap(self, _events: int) -> None:
        self._loop.forget(self._child.stderr)
        self._loop.forget(self._child.pidfd)
        ended = self._child.wait()
        self._console.drain()
        self._leave()
        self._on_exit(ended)

    def _leave(self) -> None:
        for fd in (self._child.pidfd, self._child.stderr, self._qmp.fileno()):
            self._loop.forget(fd)
        self._qmp.close()
        self._console.close()


def start(loop: Loop, journal: Journal, resources: Resources, *, name: str, sandbox: bool, on_exit: OnExit) -> Machine:
    """Start the configured guest; it runs when this returns.

    Raises:
        Fault: it cannot be started; everything is as before, and the configuration can be mended.
    """
    resources.serial.open()
    our_monitor, their_monitor = socket.socketpair()
    our_console, their_console = socket.socketpair()
    # Each character is a message with an overhead of its own: room for a burst, so that the guest need not wait.
    their_console.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONSOLE_BUFFER)
    try:
        with their_monitor, their_console:
            child = _spawn(journal, resources, name, sandbox, their_monitor.fileno(), their_console.fileno())
    except (OSError, FirkinError) as error:
        our_monitor.close()
        our_console.close()
        resources.renew_vsock()
        raise error if isinstance(error, Fault) else Fault(f"Internal error: {error}", Area.START) from error
    qmp = Qmp(our_monitor, lambda event: _log_event(journal, event))
    try:
        qmp.negotiate()
        live = Live(loop, qmp, resources)
        live.begin()
    except EngineError as error:
        if not isinstance(error, QmpClosed):
            child.kill()
        our_monitor.close()
        our_console.close()
        resources.renew_vsock()
        raise Fault(f"Internal error: {error}: {child.wait().describe()}", Area.START) from error
    resources.release_files()
    console = _console(loop, our_console, resources.serial)
    return Machine(loop, journal, child, qmp, console, live, on_exit)


def _console(loop: Loop, ours: socket.socket, serial: SerialPort) -> Console | SerialOut:
    output = serial.take_output()
    return Console(loop, ours) if output is None else SerialOut(loop, ours, output, Bucket(serial.config.rate_limiter))


def _spawn(
    journal: Journal, resources: Resources, name: str, sandbox: bool, monitor_fd: int, console_fd: int
) -> process.Child:
    tsc_khz = tsc.host_khz()
    if tsc_khz is None:
        journal.warn("The rate of the host's TSC is unknown: the guest calibrates its own, which may hang.")
    around = Surroundings(name=name, tsc_khz=tsc_khz, sandbox=sandbox, other_user=can_become_nobody())
    guest, made = plan_guest(resources, around, monitor_fd=monitor_fd, console_fd=console_fd)
    try:
        argv = qemu_argv(guest, process.find(PROGRAM))
        journal.debug("QEMU: " + " ".join(argv))
        vsock = resources.vsock_device
        child = process.spawn(argv, inherited(guest, resources), vsock.child_setup if vsock else _nothing)
    finally:
        for fd in made:
            os.close(fd)
    if vsock:
        _attach(vsock, child)
    return child


def _attach(vsock: VsockDevice, child: process.Child) -> None:
    try:
        vsock.attach(child.pid)
    except EngineError as error:
        child.kill()
        raise EngineError(f"{error}: {child.wait().describe()}") from error


def _log_event(journal: Journal, event: Message) -> None:
    journal.debug(f"QEMU event {event.get('event')}: {event.get('data', {})}")


def _nothing() -> None:
    pass
