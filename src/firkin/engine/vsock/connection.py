"""One vsock connection: guest packets on one side, a byte stream of the host on the other.

The guest's bytes go to the host at once; what the host will not take yet waits in a backlog that the credit we grant
bounds. The host's bytes stay in its socket until the guest has both credit and a buffer for them.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from firkin.engine.vsock import packet
from firkin.engine.vsock.packet import BOTH_WAYS, MAX_PAYLOAD, NO_MORE_RECEIVE, NO_MORE_SEND, Header, Packet

SMALL_BUFFER = 64 * 1024  # Firecracker's
_COUNTER = 0xFFFFFFFF


class Stream(Protocol):
    """The host's end of a connection, never blocking."""

    def receive(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end. Raises BlockingIOError when there are none yet, OSError when broken."""

    def send(self, data: bytes | bytearray | memoryview) -> int:
        """How many bytes were taken. Raises BlockingIOError for none, OSError when nobody will ever read them."""

    def want_writable(self, wanted: bool) -> None:
        """Whether to be told when `send` can go on."""

    def finish_writing(self) -> None: ...

    def stop_reading(self) -> None: ...

    def gone(self) -> bool:
        """Whether the other side has closed, not just stopped writing."""

    def close(self) -> None: ...


class State(Enum):
    DIALING = "the guest asked; the host's listener has not taken it yet"
    REQUESTED = "the host asked; the guest has not answered yet"
    OPEN = "open"
    OVER = "forgotten, without a word to the guest"
    RESET = "forgotten; the guest is told"


class Connection:
    """The state machine. It asks for attention by `wants_attention`, and ends by its state."""

    def __init__(
        self,
        host_port: int,
        guest_port: int,
        stream: Stream | None,
        state: State,
        *,
        buffer_size: int = SMALL_BUFFER,
    ) -> None:
        """`buffer_size`: how many bytes the guest may send ahead of the host."""
        self.host_port = host_port
        self.guest_port = guest_port
        self.stream = stream
        self.state = state
        self.deadline_s: float | None = None
        self.queued = False  # owned by whoever hands out turns
        self.known_to_guest = state is State.DIALING
        self.peer_alloc = self.peer_forwarded = 0
        self._sent = self._forwarded = self._announced = 0  # modulo 2**32, as on the wire
        self._pending = [packet.REQUEST] if state is State.REQUESTED else []
        self._buffer_size = buffer_size
        self._backlog = bytearray()
        self._readable = False
        self._asked_credit = False
        self._host_ended = False
        self._guest_shutdown = 0
        self._shutdown = 0  # what the guest shall know of our side, and what it was told
        self._shutdown_told = 0

    @property
    def ended(self) -> bool:
        return self.state in (State.OVER, State.RESET)

    @property
    def backlog_size(self) -> int:
        return len(self._backlog)

    def opened(self, stream: Stream) -> None:
        """The host took the guest's connection."""
        self.stream = stream
        self.state = State.OPEN
        self._readable = True
        self._want(packet.RESPONSE)

    # --- from the guest

    def receive(self, header: Header, payload: bytes) -> None:
        """Take one packet of the guest."""
        self.peer_alloc = header.buf_alloc
        self.peer_forwarded = header.fwd_cnt
        if self._credit():
            self._asked_credit = False  # while there is none, asking again would only be answered the same
        if header.op == packet.RST:
            self.state = State.OVER
        elif header.op == packet.RESPONSE and self.state is State.REQUESTED:
            self._accepted()
        elif self.state is not State.OPEN:
            self.state = State.RESET
        else:
            self._receive_open(header, payload)

    def _accepted(self) -> None:
        assert self.stream is not None
        self.state = State.OPEN
        self.deadline_s = None
        self._readable = True
        try:
            self.stream.send(b"OK %d\n" % self.host_port)
        except OSError:
            self._host_deaf()

    def _receive_open(self, header: Header, payload: bytes) -> None:
        if header.op == packet.RW:
            self._forward(payload)
        elif header.op == packet.SHUTDOWN:
            self._guest_shuts(header.flags)
        elif header.op == packet.CREDIT_REQUEST:
            self._want(packet.CREDIT_UPDATE)
        elif header.op != packet.CREDIT_UPDATE:
            self.state = State.RESET

    def _forward(self, payload: bytes) -> None:
        if self._guest_shutdown & NO_MORE_SEND or len(self._backlog) + len(payload) > self._buffer_size:
            self.state = State.RESET  # it said it was done, or it overran its credit
            return
        sent = 0 if self._backlog else self._send(payload)
        if sent < len(payload):
            self._keep(memoryview(payload)[sent:])

    def _keep(self, rest: memoryview) -> None:
        assert self.stream is not None
        if not self._backlog:
            self.stream.want_writable(True)
        self._backlog += rest

    def _send(self, data: bytes | bytearray) -> int:
        """Pass data on and count it; to a host that reads no more, data is passed on by dropping it."""
        assert self.stream is not None
        sent = len(data)
        if not self._shutdown & NO_MORE_RECEIVE:
            try:
                sent = self.stream.send(data)
            except BlockingIOError:
                return 0
            except OSError:
                self._host_deaf()
        self._forwarded = (self._forwarded + sent) & _COUNTER
        if (self._forwarded - self._announced) & _COUNTER >= self._buffer_size // 2:
            self._want(packet.CREDIT_UPDATE)
        return sent

    def _guest_shuts(self, flags: int) -> None:
        assert self.stream is not None
        before, self._guest_shutdown = self._guest_shutdown, self._guest_shutdown | flags & BOTH_WAYS
        if self._guest_shutdown == BOTH_WAYS:
            self.state = State.RESET  # the answer that a guest waits for; the backlog outlives it
            return
        news = self._guest_shutdown & ~before
        if news & NO_MORE_RECEIVE:
            self.stream.stop_reading()
        if news & NO_MORE_SEND and not self._backlog:
            self.stream.finish_writing()

    # --- from the host

    def readable(self) -> None:
        """The host's stream may have data, or have ended."""
        self._readable = True
        if self._host_ended:
            self._host_maybe_gone()

    def writable(self) -> None:
        """Empty the backlog as far as the host takes it."""
        assert self.stream is not None
        if not self._backlog:
            return
        del self._backlog[: self._send(self._backlog)]
        if self._backlog:
            return
        self.stream.want_writable(False)
        if self._guest_shutdown & NO_MORE_SEND:
            self.stream.finish_writing()

    def _host_deaf(self) -> None:
        """The host reads no more, though it may still have written what we have not read."""
        self._shut(NO_MORE_RECEIVE)

    def _host_maybe_gone(self) -> None:
        assert self.stream is not None
        if not self._shutdown & NO_MORE_RECEIVE and self.stream.gone():
            self._host_deaf()

    def _shut(self, flags: int) -> None:
        self._shutdown |= flags
        self._want(packet.SHUTDOWN)

    # --- to the guest

    def wants_attention(self) -> bool:
        """Whether `next_packet` may have something."""
        return bool(self._pending) or (self._may_read() and (self._credit() > 0 or not self._asked_credit))

    def next_packet(self) -> Packet | None:
        """What the guest should hear next; None when there is nothing now."""
        if self._pending:
            return self._control(self._pending.pop(0))
        if not self._may_read():
            return None
        room = min(self._credit(), MAX_PAYLOAD)
        if not room:
            return self._ask_credit()
        return self._data(room)

    def _may_read(self) -> bool:
        return (
            self._readable
            and self.state is State.OPEN
            and not self._host_ended
            and not self._guest_shutdown & NO_MORE_RECEIVE
        )

    def _credit(self) -> int:
        """How many bytes the guest can still take; a guest whose counters lie gets none."""
        in_flight = (self._sent - self.peer_forwarded) & _COUNTER
        return max(0, self.peer_alloc - in_flight)

    def _ask_credit(self) -> Packet | None:
        if self._asked_credit:
            return None
        self._asked_credit = True
        return self._packet(packet.CREDIT_REQUEST)

    def _data(self, room: int) -> Packet | None:
        assert self.stream is not None
        try:
            data = self.stream.receive(room)
        except BlockingIOError:
            self._readable = False
            return None
        except OSError:
            data = b""  # reset by the host, after all of its data was read
        if not data:
            return self._host_end()
        self._sent = (self._sent + len(data)) & _COUNTER
        return self._packet(packet.RW, payload=data)

    def _host_end(self) -> Packet | None:
        self._host_ended = True
        self._shut(NO_MORE_SEND)
        self._host_maybe_gone()
        return self._control(self._pending.pop(0))

    def _control(self, op: int) -> Packet:
        if op == packet.REQUEST:
            self.known_to_guest = True
        if op == packet.SHUTDOWN:
            self._shutdown_told = self._shutdown
            return self._packet(op, flags=self._shutdown)
        return self._packet(op)

    def _packet(self, op: int, *, flags: int = 0, payload: bytes = b"") -> Packet:
        """Every packet carries our counters, so each one is a credit update as well."""
        self._announced = self._forwarded
        if op != packet.CREDIT_UPDATE and packet.CREDIT_UPDATE in self._pending:
            self._pending.remove(packet.CREDIT_UPDATE)
        return Packet(self.host_port, self.guest_port, op, flags, self._buffer_size, self._forwarded, payload)

    @property
    def host_is_done(self) -> bool:
        """The guest has been told that the host neither sends nor receives: it should say goodbye soon."""
        return self._shutdown_told == BOTH_WAYS

    def _want(self, op: int) -> None:
        if op not in self._pending:
            self._pending.append(op)
