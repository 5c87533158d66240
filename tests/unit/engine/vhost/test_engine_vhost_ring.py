"""The split ring, against a driver that keeps the rules and one that does not."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ring_fakes import AVAIL, BUFFERS, DESC, HOST_OFFSET, INDIRECT, NEXT, USED, WRITE, FakeDriver, FakeMemory

from firkin.engine.vhost.memory import RingBroken, Span
from firkin.engine.vhost.ring import EVENT_IDX, INDIRECT_DESC, NOTIFY_ON_EMPTY, Chain, SplitRing

BUFFER = BUFFERS + HOST_OFFSET


@pytest.fixture
def driver() -> FakeDriver:
    return FakeDriver(FakeMemory())


def ring_of(
    driver: FakeDriver, *, device_writes: bool = False, features: int = INDIRECT_DESC, next_avail: int = 0
) -> SplitRing:
    return SplitRing(
        driver.memory, driver.layout, device_writes=device_writes, features=features, next_avail=next_avail
    )


def take_all(ring: SplitRing, limit: int = 100) -> list[Chain]:
    batch = ring.pending(limit)
    return [batch.take() for _ in range(len(batch))]


def test_single_buffer(driver: FakeDriver) -> None:
    driver.describe(3, BUFFERS, 100)
    driver.offer(3)
    assert take_all(ring_of(driver)) == [Chain(3, [Span(BUFFER, 100)], 100)]


def test_chain_of_buffers(driver: FakeDriver) -> None:
    driver.describe(1, BUFFERS, 44, NEXT, 5)
    driver.describe(5, BUFFERS + 0x100, 10)
    driver.offer(1)
    assert take_all(ring_of(driver)) == [Chain(1, [Span(BUFFER, 44), Span(BUFFER + 0x100, 10)], 54)]


def test_indirect_table(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 32, INDIRECT)
    struct.pack_into("<QIHH", driver.memory.data, BUFFERS, BUFFERS + 0x100, 44, NEXT, 1)
    struct.pack_into("<QIHH", driver.memory.data, BUFFERS + 16, BUFFERS + 0x200, 7, 0, 0)
    driver.offer(0)
    assert take_all(ring_of(driver)) == [Chain(0, [Span(BUFFER + 0x100, 44), Span(BUFFER + 0x200, 7)], 51)]


def test_limit_leaves_the_rest_for_later(driver: FakeDriver) -> None:
    for number in range(4):
        driver.describe(number, BUFFERS, number + 1)
    driver.offer(0, 1, 2, 3)
    ring = ring_of(driver)
    assert [chain.head for chain in take_all(ring, 3)] == [0, 1, 2]
    assert [chain.head for chain in take_all(ring, 3)] == [3]
    assert take_all(ring) == []


def test_what_is_not_taken_stays(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1)
    driver.offer(0, 0)
    ring = ring_of(driver)
    ring.pending(2).take()
    assert ring.next_avail == 1
    assert len(ring.pending(2)) == 1


def test_indices_wrap(driver: FakeDriver) -> None:
    driver.describe(2, BUFFERS, 1)
    driver.index = 0xFFFE
    struct.pack_into("<H", driver.memory.data, USED + 2, 0xFFFE)
    ring = ring_of(driver, next_avail=0xFFFE)
    driver.offer(2, 2, 2)
    assert len(take_all(ring)) == 3
    assert ring.next_avail == 1
    ring.complete([(2, 10), (2, 11), (2, 12)])
    index, elements = driver.used()
    assert index == 1
    assert [elements[i] for i in (6, 7, 0)] == [(2, 10), (2, 11), (2, 12)]


def test_first_completion_always_interrupts(driver: FakeDriver) -> None:
    driver.set_used_event(0x4000)
    assert ring_of(driver, features=EVENT_IDX).complete([(0, 0)])


def test_used_event_says_when_to_interrupt(driver: FakeDriver) -> None:
    ring = ring_of(driver, features=EVENT_IDX)
    ring.complete([(0, 0)])
    driver.set_used_event(2)
    assert not ring.complete([(1, 0)])
    assert ring.complete([(2, 0)])
    assert not ring.complete([(3, 0)])


def test_flag_silences_interrupts_without_event_index(driver: FakeDriver) -> None:
    ring = ring_of(driver)
    assert ring.complete([(0, 0)])
    struct.pack_into("<H", driver.memory.data, AVAIL, 1)
    assert not ring.complete([(0, 0)])


def test_empty_ring_interrupts_when_the_driver_asked(driver: FakeDriver) -> None:
    ring = ring_of(driver, features=NOTIFY_ON_EMPTY)
    struct.pack_into("<H", driver.memory.data, AVAIL, 1)
    assert ring.complete([(0, 0)])


def test_nothing_completed_is_no_interrupt(driver: FakeDriver) -> None:
    assert not ring_of(driver).complete([])


def test_kick_is_asked_for_the_next_buffer(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1)
    driver.offer(0, 0)
    ring = ring_of(driver, features=EVENT_IDX)
    take_all(ring)
    assert ring.await_kick()
    assert driver.avail_event() == 2


def test_buffer_that_came_before_the_kick_was_armed_is_noticed(driver: FakeDriver) -> None:
    ring = ring_of(driver, features=EVENT_IDX)
    driver.describe(0, BUFFERS, 1)
    driver.offer(0)
    assert not ring.await_kick()


def test_kick_can_be_asked_for_the_buffer_after_those_that_are_too_few(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1)
    driver.offer(0, 0)
    ring = ring_of(driver, features=EVENT_IDX)
    assert ring.await_kick(2)
    assert driver.avail_event() == 2
    assert not ring.await_kick(1)


def test_used_index_goes_on_where_an_earlier_device_stopped(driver: FakeDriver) -> None:
    struct.pack_into("<HH", driver.memory.data, USED, 1, 7)
    ring_of(driver, next_avail=7).complete([(4, 9)])
    index, elements = driver.used()
    assert (index, elements[7]) == (8, (4, 9))


def test_torn_index_is_read_again(driver: FakeDriver) -> None:
    class Torn(FakeMemory):
        torn = True

        def read(self, address: int, size: int) -> bytes:
            data = super().read(address, size)
            if address == AVAIL + HOST_OFFSET and self.torn:
                self.torn = False
                return data[:2] + b"\xff\x01"  # the new high byte beside the old low byte
            return data

    memory = Torn()
    driver = FakeDriver(memory, size=256)
    driver.layout = driver.layout._replace(size=256)
    driver.index = 0xFF
    driver.describe(0, BUFFERS, 1)
    ring = ring_of(driver, next_avail=0xFF)
    driver.offer(0)
    assert len(ring.pending(256)) == 1


def looping_chain(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1, NEXT, 1)
    driver.describe(1, BUFFERS, 1, NEXT, 0)


def chain_out_of_the_table(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1, NEXT, 8)


def wrong_direction(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 1, WRITE)


def no_such_memory(driver: FakeDriver) -> None:
    driver.describe(0, 1 << 40, 1)


def too_long(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 0xFFFFFFFF)


def indirect_of_odd_size(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 17, INDIRECT)


def indirect_of_nothing(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 0, INDIRECT)


def indirect_of_a_million(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 16 << 20, INDIRECT)


def indirect_in_a_chain(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 16, INDIRECT | NEXT, 1)


def indirect_in_indirect(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 16, INDIRECT)
    struct.pack_into("<QIHH", driver.memory.data, BUFFERS, BUFFERS, 16, INDIRECT, 0)


@pytest.mark.parametrize(
    "breaks",
    [
        looping_chain,
        chain_out_of_the_table,
        wrong_direction,
        no_such_memory,
        too_long,
        indirect_of_odd_size,
        indirect_of_nothing,
        indirect_of_a_million,
        indirect_in_a_chain,
        indirect_in_indirect,
    ],
)
def test_nonsense_breaks_the_ring(driver: FakeDriver, breaks: object) -> None:
    assert callable(breaks)
    breaks(driver)
    driver.offer(0)
    with pytest.raises(RingBroken):
        take_all(ring_of(driver))


def test_head_out_of_the_table_breaks_the_ring(driver: FakeDriver) -> None:
    driver.offer(8)
    with pytest.raises(RingBroken):
        take_all(ring_of(driver))


def test_more_buffers_than_descriptors_break_the_ring(driver: FakeDriver) -> None:
    struct.pack_into("<H", driver.memory.data, AVAIL + 2, 9)
    with pytest.raises(RingBroken, match="claims 9"):
        ring_of(driver).pending(100)


def test_indirect_needs_its_feature(driver: FakeDriver) -> None:
    driver.describe(0, BUFFERS, 16, INDIRECT)
    driver.offer(0)
    with pytest.raises(RingBroken):
        take_all(ring_of(driver, features=0))


@given(
    table=st.binary(min_size=128, max_size=128),
    avail=st.binary(min_size=22, max_size=22),
    heap=st.binary(max_size=64),
    device_writes=st.booleans(),
    features=st.sampled_from([0, INDIRECT_DESC, INDIRECT_DESC | EVENT_IDX]),
)
@settings(max_examples=300, deadline=500)
def test_a_ring_of_garbage_ends(table: bytes, avail: bytes, heap: bytes, device_writes: bool, features: int) -> None:
    memory = FakeMemory()
    memory.data[DESC : DESC + len(table)] = table
    memory.data[AVAIL : AVAIL + len(avail)] = avail
    memory.data[: len(heap)] = heap
    use_up(FakeDriver(memory), device_writes=device_writes, features=features)


descriptors = st.tuples(
    st.sampled_from([0, BUFFERS, BUFFERS + 16, 0xFFF0, 1 << 63]),
    st.sampled_from([0, 1, 16, 32, 48, 4096, 0xFFFFFFFF]),
    st.integers(0, 7),
    st.integers(0, 8),
)


@given(
    table=st.lists(descriptors, min_size=8, max_size=8),
    inner=st.lists(descriptors, min_size=3, max_size=3),
    heads=st.lists(st.integers(0, 8), min_size=8, max_size=8),
    index=st.integers(0, 8),
    device_writes=st.booleans(),
)
@settings(max_examples=300, deadline=500)
def test_a_ring_of_plausible_lies_ends(
    table: list[tuple[int, int, int, int]],
    inner: list[tuple[int, int, int, int]],
    heads: list[int],
    index: int,
    device_writes: bool,
) -> None:
    driver = FakeDriver(FakeMemory())
    for number, row in enumerate(table):
        driver.describe(number, *row)
    for number, row in enumerate(inner):
        struct.pack_into("<QIHH", driver.memory.data, BUFFERS + 16 * number, *row)
    driver.offer(*heads)
    struct.pack_into("<H", driver.memory.data, AVAIL + 2, index)
    use_up(driver, device_writes=device_writes, features=INDIRECT_DESC | EVENT_IDX)


def use_up(driver: FakeDriver, *, device_writes: bool, features: int) -> None:
    """Serve the ring as the pump would; only RingBroken may end it early."""
    try:
        ring = ring_of(driver, device_writes=device_writes, features=features)
        chains = take_all(ring)
        assert len(chains) <= driver.size
        assert all(sum(span.size for span in chain.spans) == chain.size for chain in chains)
        ring.complete([(chain.head, 0) for chain in chains])
        ring.await_kick()
    except RingBroken:
        pass
