"""The host's side of the device: who knocks on the unix socket, and the sockets that the guest's connections go to."""

from __future__ import annotations

import socket
import time
from functools import partial

from firkin.engine.vhost.reactor import ENDED, GONE, READ, WRITE, Reactor
from firkin.engine.vsock import greeting, streams
from firkin.engine.vsock.clock import RunClock
from firkin.engine.vsock.connection import Connection, Stream
from firkin.engine.vsock.muxer import MAX_CONNECTIONS, Muxer
from firkin.engine.vsock.streams import HostStream

ACCEPT_BATCH = 32
MUTE_S = 0.1


class Doorway:
    """Brings host programs and the muxer together. While it is shut, they wait in the socket's queue."""

    def __init__(self, reactor: Reactor, clock: RunClock, listener: socket.socket, uds_path: str) -> None:
        """Takes over `listener`. `muxer` must be set before the first call."""
        self.muxer: Muxer
        self.refusing = False  # let nobody in, and say so by closing
        self._reactor = reactor
        self._clock = clock
        self._listener = listener
        self._uds_path = uds_path
        self._greeting: set[HostStream] = set()
        self._muted_until_s: float | None = None

    def open(self) -> None:
        self._muted_until_s = None
        self._reactor.add(self._listener.fileno(), READ, self._on_listener)

    def open_in(self, delay_s: float) -> None:
        """Let those who knock wait a little longer."""
        self._muted_until_s = time.monotonic() + delay_s

    def shut(self) -> None:
        self._muted_until_s = None
        self._reactor.remove(self._listener.fileno())

    def close(self) -> None:
        for stream in list(self._greeting):
            self._dismiss(stream)
        self.shut()
        self._listener.close()

    def dial(self, connection: Connection) -> Stream | None:
        """The muxer's way to a host program that listens on `<uds_path>_<port>`."""
        connected = streams.dial(f"{self._uds_path}_{connection.host_port}")
        if connected is None:
            return None
        stream = HostStream(self._reactor, connected)
        stream.watch(partial(self._on_stream, connection))
        return stream

    def tick(self) -> float | None:
        """Open again when it is time; else the seconds until then, None when there is nothing to wait for."""
        if self._muted_until_s is None:
            return None
        left_s = self._muted_until_s - time.monotonic()
        if left_s > 0:
            return left_s
        self.open()
        return None

    def _on_listener(self, _: int) -> None:
        for _ in range(ACCEPT_BATCH):
            try:
                accepted, _address = self._listener.accept()
            except BlockingIOError:
                return
            except OSError:  # no descriptor or memory to spare: let the queue wait
                self.shut()
                self._muted_until_s = time.monotonic() + MUTE_S
                return
            self._greet(accepted)

    def _greet(self, accepted: socket.socket) -> None:
        stream = HostStream(self._reactor, accepted)
        if self.refusing or len(self.muxer) + len(self._greeting) >= MAX_CONNECTIONS:
            stream.close()
            return
        self._greeting.add(stream)
        stream.watch(partial(self._on_greeting, stream))

    def _on_greeting(self, stream: HostStream, events: int) -> None:
        try:
            found = greeting.parse(stream.peek(greeting.MAX_SIZE))
        except BlockingIOError:
            return
        except (OSError, greeting.BadGreeting):
            self._dismiss(stream)
            return
        if found is not None:
            self._connect(stream, *found)
        elif events & (GONE | ENDED):
            self._dismiss(stream)

    def _connect(self, stream: HostStream, guest_port: int, greeting_size: int) -> None:
        stream.receive(greeting_size)
        self._greeting.discard(stream)
        connection = self.muxer.connect(stream, guest_port, self._clock.now_s())
        stream.watch(partial(self._on_stream, connection))

    def _dismiss(self, stream: HostStream) -> None:
        self._greeting.discard(stream)
        stream.close()

    def _on_stream(self, connection: Connection, events: int) -> None:
        self.muxer.on_stream(connection, readable=bool(events & (READ | GONE)), writable=bool(events & (WRITE | GONE)))
