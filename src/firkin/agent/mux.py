"""All streams of one connection to the agent, from the host's side. Bytes in, bytes out; no I/O, no threads.

The blocking client and the asyncio one drive the same `Mux`. Memory is bounded by what was offered: a stream holds at
most its window of output, and a guest that sends more has broken the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from firkin.agent.frames import MAX_PAYLOAD, STDIN_EOF, Frame, FrameReader, Kind
from firkin.agent.messages import ExitStatus, decode_error, decode_exit, decode_started, decode_window
from firkin.agent.outputs import Output, Outputs
from firkin.agent.requests import encode_signal, encode_window, encode_winsize
from firkin.errors import AgentError

OUTPUT_WINDOW = 1024 * 1024  # bytes of one stream's output that may be under way
MAX_STREAMS = 64  # that the agent runs on one connection

OUTPUT_FD = {Kind.STDOUT: 1, Kind.STDERR: 2}
Fault = Callable[[Frame], AgentError]


@dataclass(slots=True, eq=False)
class Stream:
    """What the frames have told of one request so far."""

    number: int
    fault: Fault = decode_error
    pid: int | None = None
    outputs: Outputs = field(default_factory=Outputs)
    status: ExitStatus | None = None
    reply: Frame | None = None
    error: AgentError | None = None
    stdin_credit: int = 0
    stdin_open: bool = True
    unwanted: bool = False  # nobody reads: output is dropped as it comes
    _credit: int = OUTPUT_WINDOW
    _owed: int = 0

    @property
    def ended(self) -> bool:
        """Nothing more will come."""
        return self.status is not None or self.reply is not None or self.error is not None

    @property
    def settled(self) -> bool:
        """Whether it is known if the request was taken."""
        return self.pid is not None or self.ended

    @property
    def takes_input(self) -> bool:
        """Whether stdin may be sent now."""
        return self.stdin_open and self.stdin_credit > 0 and not self.ended

    def arrived(self, size: int) -> None:
        """Count output against what we offered."""
        self._credit -= size
        if self._credit < 0:
            raise AgentError("agent: more output than was asked for")

    def returned(self, size: int) -> int:
        """Output was read; answers the credit to give back now, in large pieces."""
        self._owed += size
        if self._owed < OUTPUT_WINDOW // 4:
            return 0
        owed, self._owed = self._owed, 0
        self._credit += owed
        return owed


class Mux:
    """Hands frames to streams, and collects in `outgoing` what is to be sent."""

    def __init__(self) -> None:
        self.outgoing = bytearray()
        self.error: AgentError | None = None
        self._reader = FrameReader()
        self._streams: dict[int, Stream] = {}
        self._last = 0

    @property
    def running(self) -> int:
        """Streams that have not ended."""
        return len(self._streams)

    def open(self, encode: Callable[[int], bytes], fault: Fault = decode_error) -> Stream:
        """Queue a request; `encode` makes its frame for a stream number, `fault` the error for an ERROR frame.

        Raises:
            AgentError: the connection is broken, or the request does not fit in a frame.
        """
        self.check()
        frame = encode(self._last + 1)
        self._last += 1
        self.outgoing += frame
        stream = self._streams[self._last] = Stream(self._last, fault)
        return stream

    def check(self) -> None:
        """Raise what broke the connection, if it is broken."""
        if self.error is not None:
            raise self._again()

    def receive(self, data: bytes) -> list[Stream]:
        """Take bytes in; answers the streams for which something changed. A fault breaks the connection for all."""
        touched = []
        try:
            for frame in self._reader.feed(data):
                stream = self._take(frame)
                if stream is not None:
                    touched.append(stream)
        except AgentError as error:
            return self.fail(error)
        return touched

    def fail(self, error: AgentError) -> list[Stream]:
        """The connection is broken: end every stream with this error."""
        self.error = self.error or error
        streams = list(self._streams.values())
        for stream in streams:
            stream.error = self._again()
        self._streams.clear()
        self.outgoing.clear()
        return streams

    def read(self, stream: Stream) -> Output | None:
        """The next piece of output that has arrived."""
        output = stream.outputs.pop()
        if output is not None:
            self._give_back(stream, len(output.data))
        return output

    def write(self, stream: Stream, data: memoryview) -> int:
        """Send stdin within its credit; answers how many bytes."""
        size = min(len(data), stream.stdin_credit, MAX_PAYLOAD)
        if size and stream.takes_input:
            stream.stdin_credit -= size
            self.outgoing += Frame(Kind.STDIN, bytes(data[:size]), stream.number).encode()
        return size

    def close_stdin(self, stream: Stream) -> None:
        """Tell the end of stdin, once."""
        if stream.stdin_open and not stream.ended:
            self.outgoing += Frame(Kind.STDIN, b"", stream.number, STDIN_EOF).encode()
        stream.stdin_open = False

    def detach(self, stream: Stream) -> None:
        """Leave a kept program to itself: nothing that it says from now on reaches us."""
        if not stream.ended:
            self.outgoing += Frame(Kind.DETACH, stream=stream.number).encode()
            self.abandon(stream)

    def abandon(self, stream: Stream) -> None:
        """Nobody reads this stream any more: drop what comes."""
        stream.unwanted = True
        while self.read(stream) is not None:
            pass

    def signal(self, stream: Stream, number: int) -> bytes:
        """The frame for a signal to the program's process group; empty when it has ended."""
        return b"" if stream.ended else encode_signal(number, stream.number)

    def resize(self, stream: Stream, rows: int, columns: int) -> bytes:
        """The frame for a terminal's new size; empty when the program has ended."""
        return b"" if stream.ended else encode_winsize(rows, columns, stream.number)

    def _again(self) -> AgentError:
        """What broke the connection as a new error, since several threads may raise it."""
        assert self.error is not None
        return AgentError(str(self.error), hint=self.error.hint)

    def _take(self, frame: Frame) -> Stream | None:
        stream = self._streams.get(frame.stream)
        if stream is None:
            if frame.kind == Kind.ERROR and frame.stream == 0:
                raise decode_error(frame)
            raise AgentError(f"agent: {frame.kind.name} for stream {frame.stream}, which does not run")
        fd = OUTPUT_FD.get(frame.kind)
        if fd is not None:
            self._take_output(stream, fd, frame.payload)
        else:
            self._take_event(stream, frame)
        if stream.ended:
            del self._streams[stream.number]
        return stream

    def _take_output(self, stream: Stream, fd: int, data: bytes) -> None:
        if stream.pid is None:
            raise AgentError("agent: output of a program that has not started")
        stream.arrived(len(data))
        if stream.unwanted:
            self._give_back(stream, len(data))
        elif data:
            stream.outputs.push(fd, data)

    def _take_event(self, stream: Stream, frame: Frame) -> None:
        if frame.kind == Kind.ERROR:
            stream.error = stream.fault(frame)
        elif frame.kind == Kind.OK:
            stream.reply = frame
        elif frame.kind == Kind.STARTED and stream.pid is None:
            stream.pid, stream.stdin_credit = decode_started(frame)
        elif frame.kind == Kind.WINDOW and stream.pid is not None:
            stream.stdin_credit += decode_window(frame)
        elif frame.kind == Kind.EXIT and stream.pid is not None:
            stream.status = decode_exit(frame)
        else:
            raise AgentError(f"agent: {frame.kind.name} out of turn")

    def _give_back(self, stream: Stream, size: int) -> None:
        credit = stream.returned(size)
        if credit and not stream.ended:
            self.outgoing += encode_window(credit, stream.number)
