"""Moves packets between the guest's two rings and the muxer, a bounded amount at a time."""

from __future__ import annotations

from firkin.engine.vhost.memory import Memory, RingBroken, cut, gather, scatter
from firkin.engine.vhost.ring import Batch, Chain, SplitRing
from firkin.engine.vhost.vring import RX, TX, Vring
from firkin.engine.vsock import packet
from firkin.engine.vsock.muxer import Muxer
from firkin.engine.vsock.packet import HEADER_SIZE, MalformedPacket, Packet

TX_BATCH = 32
RX_BATCH = 64


class Pump:
    """Serves the rings of a running device. RingBroken leaves every method when the guest's rings are unusable."""

    def __init__(self, memory: Memory, vrings: tuple[Vring, Vring], muxer: Muxer) -> None:
        self._memory = memory
        self._vrings = vrings
        self._muxer = muxer
        self._left: tuple[Packet, memoryview] | None = None  # what did not fit the guest's last buffers
        self._tx_ready = self._rx_ready = True

    def kicked(self, index: int) -> None:
        if index == TX:
            self._tx_ready = True
        else:
            self._rx_ready = True

    def forget(self) -> None:
        """Drop a packet cut in half: the guest that had its beginning is no more."""
        self._left = None

    def run_once(self, now_s: float) -> bool:
        """Serve both rings for a while. True when there is more to do without waiting for anyone."""
        if self._tx_ready:
            self._serve_tx(now_s)
        more = self._serve_rx(now_s) if self._rx_ready and self._has_packets() else False
        return more or (self._tx_ready and self._muxer.reset_room > 0)

    def _has_packets(self) -> bool:
        return self._left is not None or self._muxer.has_packets()

    def _serve_tx(self, now_s: float) -> None:
        """Guest to host."""
        ring = _running(self._vrings[TX])
        room = min(TX_BATCH, self._muxer.reset_room)
        if not room:
            return  # the guest must read its resets first
        batch = ring.pending(room)
        if not batch:
            self._tx_ready = not ring.await_kick()
            return
        used = []
        while batch:
            chain = batch.take()
            self._deliver(chain, now_s)
            used.append((chain.head, 0))
        self._complete(TX, ring, used)

    def _deliver(self, chain: Chain, now_s: float) -> None:
        """Hand a packet on. A malformed one is dropped without an answer, as the kernel's vhost does."""
        head, body = cut(chain.spans, HEADER_SIZE)
        try:
            header = packet.parse(gather(self._memory, head), chain.size)
        except MalformedPacket:
            return
        payload = gather(self._memory, cut(body, header.length)[0]) if header.length else b""
        self._muxer.receive(header, payload, now_s)

    def _serve_rx(self, now_s: float) -> bool:
        """Host to guest."""
        ring = _running(self._vrings[RX])
        batch = ring.pending(RX_BATCH)
        if not batch:
            self._rx_ready = not ring.await_kick()
            return self._rx_ready
        used: list[tuple[int, int]] = []
        while batch and self._fill_next(batch, used, now_s):
            pass
        self._complete(RX, ring, used)
        return self._has_packets()

    def _fill_next(self, batch: Batch, used: list[tuple[int, int]], now_s: float) -> bool:
        """Put one packet into as many buffers as it needs. False when there is no packet."""
        if self._left is not None:
            found, payload = self._left
        else:
            following = self._muxer.next_packet(now_s)
            if following is None:
                return False
            found, payload = following, memoryview(following.payload)
        self._left = None
        while batch:
            payload = self._fill(batch.take(), found, payload, used)
            if not payload:
                return True
        self._left = (found, payload)
        return True

    def _fill(self, chain: Chain, found: Packet, payload: memoryview, used: list[tuple[int, int]]) -> memoryview:
        """Write what fits into one buffer, and return the rest."""
        if chain.size <= HEADER_SIZE:
            raise RingBroken(f"receive buffer of {chain.size} bytes: too small for a packet")
        part = payload[: chain.size - HEADER_SIZE]
        data = found.pack(self._muxer.guest_cid, part)
        scatter(self._memory, chain.spans, data)
        used.append((chain.head, len(data)))
        return payload[len(part) :]

    def _complete(self, index: int, ring: SplitRing, used: list[tuple[int, int]]) -> None:
        if ring.complete(used):
            self._vrings[index].signal("call")


def _running(vring: Vring) -> SplitRing:
    assert vring.ring is not None, "served while stopped"
    return vring.ring
