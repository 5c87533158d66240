"""When a restored guest counts as told that its transport is new."""

from __future__ import annotations

import struct

import pytest
from ring_fakes import AVAIL, HOST_OFFSET, FakeMemory

from firkin.engine.vhost.memory import RingBroken
from firkin.engine.vsock.notice import Notice


def offer(memory: FakeMemory, index: int) -> None:
    """As the driver does when it has taken an event: flags, and how many buffers it ever offered."""
    memory.write(AVAIL + HOST_OFFSET, struct.pack("<HH", 0, index & 0xFFFF))


@pytest.mark.parametrize("index", [8, 0xFFFF])
def test_the_guest_has_taken_it_once_it_offers_the_buffer_again(index: int) -> None:
    memory = FakeMemory()
    offer(memory, index)
    waiting = Notice(memory, AVAIL)
    assert not waiting.is_over()
    offer(memory, index + 1)
    assert waiting.is_over()


def test_patience_ends() -> None:
    assert Notice(FakeMemory(), AVAIL, patience_s=0.0).is_over()


def test_a_ring_that_is_nowhere_is_told() -> None:
    with pytest.raises(RingBroken):
        Notice(FakeMemory(), 0x20000)


def test_memory_that_is_gone_ends_the_wait() -> None:
    memory = FakeMemory()
    waiting = Notice(memory, AVAIL)
    memory.data.clear()
    assert waiting.is_over()
