"""`@firkin.aio.function`: a Python function that runs in a machine and whose value is awaited."""

from __future__ import annotations

import asyncio
import functools
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Generic, ParamSpec, Self, TypeVar, Unpack, cast, overload

from firkin.functions import function as blocking
from firkin.functions.worker import Ticket

P = ParamSpec("P")
R = TypeVar("R")


class Function(Generic[P, R]):
    """The twin of `firkin.Function`: `await f.remote(...)`, `async for value in f.map(...)`. Cancelled, a call is ended
    in the guest too. `sync` is the same function for threads."""

    def __init__(self, function: blocking.Function[P, R]) -> None:
        functools.update_wrapper(self, function.local)
        self.sync = function
        self.local = function.local  # runs right here, as if it were not decorated
        self.at_once = function.at_once
        self._threads = ThreadPoolExecutor(self.at_once, thread_name_prefix="firkin-function")

    async def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `remote`."""
        return await self.remote(*args, **kwargs)

    async def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one call in a machine and answer its value."""
        call, ticket = self.sync.pack(args, kwargs), Ticket()
        running = asyncio.get_running_loop().run_in_executor(self._threads, self.sync.carry_out, call, ticket)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            ticket.call_off()
            await asyncio.gather(running, return_exceptions=True)
            raise

    def map(self, *iterables: Iterable[Any], return_exceptions: bool = False) -> AsyncIterator[R]:
        """A call for each item, as many at once as there are workers; values come in the items' order."""
        return self.starmap(zip(*iterables, strict=False), return_exceptions=return_exceptions)

    async def starmap(self, arguments: Iterable[Sequence[Any]], *, return_exceptions: bool = False) -> AsyncIterator[R]:
        """As `map`, for tuples of arguments."""
        pending: deque[asyncio.Task[R]] = deque()
        try:
            for args in arguments:
                pending.append(asyncio.create_task(cast("Any", self.remote)(*args)))
                if len(pending) > self.at_once:
                    yield await _outcome(pending.popleft(), return_exceptions)
            while pending:
                yield await _outcome(pending.popleft(), return_exceptions)
        finally:
            for task in pending:
                task.cancel()
            await asyncio.gather(*pending, return_exceptions=True)

    async def close(self) -> None:
        """Remove the machines; what still runs in them fails. The next call boots anew."""
        await asyncio.to_thread(self.sync.close)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()


async def _outcome(task: asyncio.Task[R], return_exceptions: bool) -> R:
    try:
        return await task
    except Exception as error:
        if not return_exceptions:
            raise
        return cast("R", error)


@overload
def function(function: Callable[P, R], /) -> Function[P, R]: ...


@overload
def function(**options: Unpack[blocking.Options]) -> Callable[[Callable[P, R]], Function[P, R]]: ...


def function(function: Callable[P, R] | None = None, /, **options: Any) -> Any:
    def decorate(function: Callable[P, R]) -> Function[P, R]:
        return Function(blocking.function(**options)(function))

    return decorate if function is None else decorate(function)


functools.update_wrapper(cast("Any", function), cast("Any", blocking.function))
