"""The thread behind a vsock device: one epoll loop for QEMU's ioctls, its doorbells and the host's sockets."""

from __future__ import annotations

import errno
import os
import socket
from functools import partial

from firkin.engine.vsock import seccomp
from firkin.engine.vsock.clock import RunClock
from firkin.engine.vsock.doorway import Doorway
from firkin.engine.vsock.memory import ProcessMemory, RingBroken
from firkin.engine.vsock.muxer import FIRST_HOST_PORT, Muxer
from firkin.engine.vsock.pump import Pump
from firkin.engine.vsock.reactor import EDGE, READ, Reactor
from firkin.engine.vsock.vhost import VhostControl
from firkin.engine.vsock.vring import NO_FD

# A restored guest's driver resets every connection once it is told that its transport is new, which is a few
# milliseconds after it runs. Who knocks before that waits, or it would be let in only to be thrown out.
SETTLE_S = 0.02


class Service:
    """Serves one QEMU process until it ends or `stop` is called. Everything but `stop` runs in the service's thread."""

    def __init__(
        self,
        uds_path: str,
        listener: socket.socket,
        guest_cid: int,
        *,
        pid: int,
        notify_fd: int,
        first_port: int | None,
    ) -> None:
        """Takes over `listener` and `notify_fd`.

        Raises:
            OSError: no such process.
        """
        self.fault: str | None = None
        self._notify_fd = notify_fd
        self._pid = pid
        self._pidfd = os.pidfd_open(pid)
        self._memory_fd = NO_FD
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._reactor = Reactor()
        self._clock = RunClock()
        self._doorway = Doorway(self._reactor, self._clock, listener, uds_path)
        self._random_port = first_port is None
        self.muxer = Muxer(guest_cid, self._doorway.dial, next_host_port=first_port or FIRST_HOST_PORT)
        self._doorway.muxer = self.muxer
        self._control: VhostControl | None = None
        self._pump: Pump | None = None
        self._serving = False
        self._ended = False
        self._last_session: object = None

    # --- the thread

    def run(self) -> None:
        """The thread's whole life. If it fails, the listener closes and QEMU's ioctls fail instead of hanging."""
        try:
            self._reactor.add(self._wake_fd, READ, lambda _: None)
            self._reactor.add(self._notify_fd, READ, self._on_notification)
            while not self._ended:
                self._turn()
        finally:
            self._close()

    def stop(self) -> None:
        """From another thread: end soon."""
        self._ended = True
        os.eventfd_write(self._wake_fd, 1)

    def close_wake(self) -> None:
        """After the thread has ended and nobody calls `stop` any more."""
        os.close(self._wake_fd)

    def _turn(self) -> None:
        more = False
        if self._serving and self._pump is not None:
            try:
                now_s = self._clock.now_s()
                self.muxer.tick(now_s)
                more = self._pump.run_once(now_s)
            except RingBroken as reason:
                self._disable(reason)
        self._reactor.run_once(0 if more else self._patience_s())

    def _patience_s(self) -> float | None:
        """How long to wait for events: until the next thing that only time brings."""
        waits_s = [self._doorway.tick()]
        tick_s = self.muxer.next_tick_s() if self._serving else None
        if tick_s is not None:
            waits_s.append(max(0.0, tick_s - self._clock.now_s()))
        return min((wait_s for wait_s in waits_s if wait_s is not None), default=None)

    def _close(self) -> None:
        self.muxer.close()
        self._doorway.close()
        if self._control is not None:
            self._control.close()
        self._reactor.close()
        for fd in (self._notify_fd, self._pidfd, self._memory_fd):
            if fd != NO_FD:
                os.close(fd)

    # --- QEMU's ioctls

    def _on_notification(self, events: int) -> None:
        if not events & READ:
            self._ended = True  # the last thread under the filter is gone
            return
        notification = seccomp.receive(self._notify_fd)
        if notification is None:
            return
        try:
            control = self._control or self._open_control(notification)
        except OSError as reason:
            self.fault = f"cannot look into process {self._pid}: {reason}"
            seccomp.respond(self._notify_fd, notification, reason.errno or errno.EPERM)
            return
        seccomp.respond(self._notify_fd, notification, control.answer(notification.request, notification.argument))

    def _open_control(self, notification: seccomp.Notification) -> VhostControl:
        """Open QEMU's memory at its first ioctl: before exec the process still had ours."""
        fd = os.open(f"/proc/{self._pid}/mem", os.O_RDWR | os.O_CLOEXEC)
        if not seccomp.still_waits(self._notify_fd, notification):
            os.close(fd)
            raise ProcessLookupError(errno.ESRCH, "the process ended")
        self._memory_fd = fd
        memory = ProcessMemory(fd)
        control = VhostControl(memory, partial(seccomp.fetch_eventfd, self._pidfd), self.muxer.guest_cid)
        control.listener = self
        self._pump = Pump(memory, control.vrings, self.muxer)
        self._control = control
        return control

    # --- the device starts and stops (vhost.Listener)

    def started(self) -> None:
        """Go on where a pause left off, or forget what an earlier life of the driver knew."""
        assert self._control is not None
        assert self._pump is not None
        self.muxer.guest_cid = self._control.guest_cid
        resumes = self._session() == self._last_session
        if not resumes:
            self._pump.forget()
            self.muxer.reset()
        self._choose_ports()
        self.fault = None
        self._serving = True
        self._clock.start()
        for index, vring in enumerate(self._control.vrings):
            self._watch_kick(index, vring.fds["kick"])
            self._pump.kicked(index)
        self._doorway.refusing = False
        if not resumes and self._is_restored():
            self._doorway.open_in(SETTLE_S)
        else:
            self._doorway.open()

    def stopped(self) -> None:
        assert self._control is not None
        self._last_session = self._session() if self.fault is None else None
        self._clock.stop()
        self._unwatch()
        self._doorway.shut()

    def kick_changed(self, index: int, old_fd: int) -> None:
        """Drop the old descriptor while it is open: QEMU holds a copy, so closing ours would leave it in the set."""
        self._reactor.remove(old_fd)
        if self._serving and self._control is not None and self._pump is not None:
            self._watch_kick(index, self._control.vrings[index].fds["kick"])
            self._pump.kicked(index)

    def _session(self) -> object:
        """Equal before and after a pause; a driver that starts anew has its rings elsewhere or at their beginning."""
        assert self._control is not None
        return tuple((vring.ring_layout(), vring.base) for vring in self._control.vrings), self._control.features

    def _is_restored(self) -> bool:
        assert self._control is not None
        return any(vring.base for vring in self._control.vrings)

    def _choose_ports(self) -> None:
        """A restored guest may still hold connections from its earlier life: stay clear of their ports."""
        assert self._control is not None
        if self._random_port and self._is_restored():
            self.muxer.next_host_port = FIRST_HOST_PORT + int.from_bytes(os.urandom(3), "little") * 64
        self._random_port = False

    def _watch_kick(self, index: int, fd: int) -> None:
        # Edge-triggered, so nobody has to read the counter: QEMU may take its doorbell back with it intact.
        if fd != NO_FD and self._pump is not None:
            pump = self._pump
            self._reactor.add(fd, READ | EDGE, lambda _: pump.kicked(index))

    def _unwatch(self) -> None:
        assert self._control is not None
        self._serving = False
        for vring in self._control.vrings:
            self._reactor.remove(vring.fds["kick"])

    def _disable(self, reason: RingBroken) -> None:
        """The guest broke its rings: leave them alone until its driver starts the device again."""
        assert self._control is not None
        self.fault = str(reason)
        self._doorway.refusing = True
        self._unwatch()
        self.muxer.reset()
