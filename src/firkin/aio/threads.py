"""What blocks on the host (boots, disks, tar archives) runs in a worker thread, under the same name and signature."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")

AHEAD = 64  # items that an iterator's thread may be ahead
# Not the loop's own: there boots wait for their turn, and what is quick would wait behind them.
_quick = ThreadPoolExecutor(64, thread_name_prefix="firkin-aio")


def threaded(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[Any, P], Coroutine[Any, Any, R]]:
    """The twin of a blocking method, for a class that keeps the blocking object in `sync`.

    A call that is cancelled goes on in its thread: what changes the host is never left half-done.
    """

    @functools.wraps(method)
    async def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return await in_thread(lambda: method(self.sync, *args, **kwargs))

    return run


async def in_thread(act: Callable[[], R]) -> R:
    """What `act` answers; meant for what takes seconds at most."""
    return await asyncio.get_running_loop().run_in_executor(_quick, act)


def threaded_iterator(
    method: Callable[Concatenate[S, P], Iterator[R]],
) -> Callable[Concatenate[Any, P], AsyncIterator[R]]:
    """The twin of a method that yields."""

    @functools.wraps(method)
    def run(self: Any, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[R]:
        return iterate(lambda: method(self.sync, *args, **kwargs))

    return run


async def iterate(start: Callable[[], Iterator[R]]) -> AsyncIterator[R]:
    """The items of a blocking iterator. Its thread is a daemon: one that waits for ever does not hold up our end."""
    loop, items = asyncio.get_running_loop(), asyncio.Queue[tuple[bool, Any]]()
    room, left = threading.Semaphore(AHEAD), threading.Event()

    def put(more: bool, item: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed, so nobody waits
            loop.call_soon_threadsafe(items.put_nowait, (more, item))

    def pump() -> None:
        try:
            for item in start():
                room.acquire()
                if left.is_set():
                    return
                put(True, item)
            put(False, None)
        except BaseException as error:  # noqa: BLE001 - raised in the loop
            put(False, error)

    threading.Thread(target=pump, name="firkin-iterator", daemon=True).start()
    try:
        while True:
            more, item = await items.get()
            if not more:
                if item is not None:
                    raise item
                return
            yield item
            room.release()
    finally:
        left.set()
        room.release()


async def made(make: Callable[[], R], unmake: Callable[[R], object]) -> R:
    """What `make` answers, in one of the loop's threads. If we are cancelled meanwhile, it is unmade first."""
    making = asyncio.create_task(asyncio.to_thread(make))
    try:
        return await asyncio.shield(making)
    except asyncio.CancelledError:
        thing = await making
        await asyncio.to_thread(unmake, thing)
        raise
