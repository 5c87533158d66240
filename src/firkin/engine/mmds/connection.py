"""One TCP connection of the guest: requests in, replies out, by the rules of RFC 9293 as far as a server needs them.

What is still to be sent is one stream: the SYN, then a reply's bytes, last the FIN. Only segments in order are taken;
the guest sends the others again, and on this path nothing is lost but what a full queue drops.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

from firkin.engine.mmds.frames import ACK, FIN, RST, SYN, Segment

RECEIVE_SIZE = 2500  # Firecracker's: the largest request, and one more
MAX_MSS, MIN_MSS = 1460, 64
BURST = 16  # segments in flight: a guest's receive queue holds 256 frames
FIRST_TIMEOUT_S, MAX_TIMEOUT_S = 0.3, 2.4
MAX_RETRIES = 15
_SEQUENCE = 1 << 32

Serve = Callable[[bytes], bytes]


def distance(later: int, earlier: int) -> int:
    """How far a sequence number is ahead of another; negative when it is behind."""
    return (later - earlier + _SEQUENCE // 2) % _SEQUENCE - _SEQUENCE // 2


class Connection:
    """Answers every request that comes over it, one after the other, with `serve`."""

    def __init__(self, syn: Segment, mac: bytes, serve: Serve, now_s: float) -> None:
        self.mac = mac  # of the guest
        self.heard_s = now_s  # when the guest last said anything
        self.done = False
        self.deadline_s: float | None = None  # when what was sent must have been acknowledged
        self._serve = serve
        self._ports = (syn.target_port, syn.source_port)
        self._first_seq = syn.seq
        self._next_seq = (syn.seq + 1) % _SEQUENCE  # of the guest
        self._acked = int.from_bytes(os.urandom(4), "big")  # our first number that the guest has not acknowledged
        self._mss = max(MIN_MSS, min(MAX_MSS, syn.mss))
        self._window, self._window_seq = syn.window, syn.seq
        self._syn, self._reply, self._fin = True, memoryview(b""), False
        self._sent = 0  # how much after `_acked` was sent, since the last timeout
        self._most_sent = 0  # and ever
        self._received = bytearray()
        self._guest_ended = False
        self._ack_wanted = False
        self._reset: Segment | None = None
        self._duplicates = 0
        self._retries = 0

    # --- from the guest

    def repeats_syn(self, segment: Segment) -> bool:
        """Whether a SYN is this connection's own once more, and no new beginning."""
        return segment.seq == self._first_seq

    def receive(self, segment: Segment, now_s: float) -> bool:
        """Take one segment; whether it was in place."""
        if self._reset is not None:
            return False
        self.heard_s = now_s
        if segment.flags & RST:
            return self._take_reset(segment)
        if segment.flags & SYN:
            return self._take_syn_again()
        if not segment.flags & ACK or not self._take_ack(segment):
            return False
        in_place = self._take_payload(segment)
        self._answer()
        return in_place

    def reset(self) -> None:
        """Break it off."""
        self._reset = self._segment(RST | ACK, self._sent)

    def _take_reset(self, segment: Segment) -> bool:
        # Only one who sees the conversation knows a number inside the window.
        self.done = 0 <= distance(segment.seq, self._next_seq) < max(1, self._room)
        return self.done

    def _take_syn_again(self) -> bool:
        if self._syn:
            self._sent = 0  # our answer was lost
        self._ack_wanted = True
        return False

    def _take_ack(self, segment: Segment) -> bool:
        """Note what the guest has; whether it can have it."""
        acked = distance(segment.ack, self._acked)
        if acked > self._most_sent or (self._syn and acked < 1):
            self._refuse_ack(segment)
            return False
        self._retries = 0
        if acked > 0:
            self._advance(acked)
        elif acked == 0 and self._most_sent and not segment.size and segment.window == self._window:
            self._duplicates += 1
            if self._duplicates == 3:
                self._sent = 0  # a loss: go back
        if acked >= 0 and distance(segment.seq, self._window_seq) >= 0:
            self._window, self._window_seq = segment.window, segment.seq
        return True

    def _refuse_ack(self, segment: Segment) -> None:
        if self._syn:
            self._reset = self._segment(RST, 0)._replace(seq=segment.ack)
        else:
            self._ack_wanted = True

    def _advance(self, acked: int) -> None:
        self._acked = (self._acked + acked) % _SEQUENCE
        self._sent = max(0, self._sent - acked)
        self._most_sent -= acked
        self._duplicates = 0
        self.deadline_s = None
        self._syn = False  # what was sent is one of SYN, reply and FIN
        self._reply = self._reply[acked:]
        self.done = self._fin  # ours comes after the guest's

    def _take_payload(self, segment: Segment) -> bool:
        """Keep what is new, in order and fits; whether nothing was out of place."""
        known = distance(self._next_seq, segment.seq)
        if segment.size or known:
            self._ack_wanted = True
        if not 0 <= known <= len(segment.payload) or (self._guest_ended and segment.size):
            return not segment.size and not known
        new = segment.payload[known : known + self._room]
        self._received += new
        self._next_seq = (self._next_seq + len(new)) % _SEQUENCE
        complete = known + len(new) == len(segment.payload)
        if complete and segment.flags & FIN:
            self._guest_ended = True
            self._next_seq = (self._next_seq + 1) % _SEQUENCE
        return complete and (not known or not segment.payload)

    @property
    def _room(self) -> int:
        return RECEIVE_SIZE - len(self._received)

    def _answer(self) -> None:
        """Serve the next request once the reply to the one before was taken."""
        if self._reply or self._fin:
            return
        if (size := _request_size(self._received)) is not None:
            if not self._room:
                self._ack_wanted = True  # the window opens again
            self._reply = memoryview(self._serve(bytes(self._received[:size])))
            del self._received[:size]
        elif not self._room:
            self.reset()  # longer than any request may be
        elif self._guest_ended:
            self._fin = True

    # --- to the guest

    def segments(self, now_s: float) -> Iterator[Segment]:
        """What the guest should get now."""
        forced = self._check_deadline(now_s)
        if self._reset is not None:
            yield self._reset
            self.done = True
            return
        yield from self._stream(1 if forced else 0)
        if self._ack_wanted:
            yield self._segment(ACK, self._sent)
        if self.deadline_s is None and self._pending:
            self.deadline_s = now_s + min(MAX_TIMEOUT_S, FIRST_TIMEOUT_S * 2**self._retries)

    @property
    def wants_attention(self) -> bool:
        """Whether `segments` has something before the deadline."""
        return self._reset is not None or self._ack_wanted or self._sent < min(self._pending, self._allowed)

    @property
    def _pending(self) -> int:
        return self._syn + len(self._reply) + self._fin

    @property
    def _allowed(self) -> int:
        """How much may be in flight. The SYN and the FIN stand alone and need no window."""
        return min(self._window, BURST * self._mss) if self._reply else 1

    def _check_deadline(self, now_s: float) -> bool:
        """Start over when nothing was heard for too long; whether that just happened."""
        if self.deadline_s is None or now_s < self.deadline_s:
            return False
        self.deadline_s = None
        self._retries += 1
        self._sent = 0
        if self._retries > MAX_RETRIES:
            self.reset()
        return True

    def _stream(self, least: int) -> Iterator[Segment]:
        """Send on from `_sent`; at least so much, which asks a guest whose window is closed whether it still is."""
        limit = min(self._pending, max(self._allowed, least))
        while self._sent < limit:
            part = self._next_part(limit)
            self._sent += part.size
            self._most_sent = max(self._most_sent, self._sent)
            yield part

    def _next_part(self, limit: int) -> Segment:
        if self._syn:
            return self._segment(SYN | ACK, 0)._replace(mss=MAX_MSS)
        if self._fin:
            return self._segment(FIN | ACK, self._sent)
        end = min(self._sent + self._mss, limit)
        return self._segment(ACK, self._sent)._replace(payload=bytes(self._reply[self._sent : end]))

    def _segment(self, flags: int, ahead: int) -> Segment:
        """A segment `ahead` of what is acknowledged. It tells the guest what we have, so no other needs to."""
        self._ack_wanted = False
        seq = (self._acked + ahead) % _SEQUENCE
        return Segment(*self._ports, seq, self._next_seq, flags, self._room)


def _request_size(data: bytearray) -> int | None:
    """Up to the first empty line, however its lines end; None while there is none."""
    ends = (data.find(mark) + len(mark) for mark in (b"\n\n", b"\n\r\n") if mark in data)
    return min(ends, default=None)
