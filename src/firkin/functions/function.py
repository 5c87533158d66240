"""`@firkin.function`: a Python function that runs in a machine and answers its value here."""

from __future__ import annotations

import functools
import inspect
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Self, TypedDict, TypeVar, Unpack, cast, overload

from firkin.errors import UsageError
from firkin.functions import ship
from firkin.functions.fleet import Fleet
from firkin.functions.worker import Terms, Ticket, Worker
from firkin.spec import Environment

if TYPE_CHECKING:
    from firkin.manager.machine import Machine
    from firkin.settings import Settings

P = ParamSpec("P")
R = TypeVar("R")

TIMEOUT_S = 300.0
MAX_RESULT = 16 * 2**20


class Function(Generic[P, R]):
    """A function whose calls run in machines. The first call boots one; it stays warm for the calls after it, until
    this process ends or `close`. As a context manager it is closed at the end of its scope.

    Calls that follow each other may meet in one Python, so what a call leaves in globals or files, the next may find.
    What the function prints is printed here. Several threads may call at once: each of `machines` runs `vcpus` calls.

    Raises:
        Whatever the function raises, with the guest's traceback as a note: built-in errors and those in `raises`.
        FunctionFailed: it raised something else, or its Python ended, or its value cannot cross.
        ExecTimeout: it took longer than `timeout_s` seconds; it was ended.
        UsageError: an argument cannot be sent.
        HostError: the image has no Python, or not this one's version.
    """

    def __init__(
        self, function: Callable[P, R], boot: Callable[[], Machine], terms: Terms, *, machines: int, seats: int
    ) -> None:
        functools.update_wrapper(self, function)
        self.local = function  # runs right here, as if it were not decorated
        self.at_once = machines * seats  # calls; more wait for their turn
        self._terms = terms
        self._fleet = Fleet(boot, self._hire, machines=machines, seats=seats)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `remote`."""
        return self.remote(*args, **kwargs)

    def remote(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run one call in a machine and answer its value."""
        return self.carry_out(self.pack(args, kwargs), Ticket())

    def pack(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bytes:
        """A call for `carry_out`. What cannot be sent is refused here, before anything boots."""
        _ = self._packed
        return ship.pack_call(self.local, args, kwargs)

    def carry_out(self, call: bytes, ticket: Ticket) -> R:
        """Run a packed call, which `ticket` can call off from another thread."""
        with self._fleet.worker() as worker, ticket.held_for(worker):
            return cast("R", worker.call(call))

    def map(self, *iterables: Iterable[Any], return_exceptions: bool = False) -> Iterator[R]:
        """A call for each item, as many at once as there are workers; values come in the items' order.

        Several iterables are walked together, as `map` does, and read no further than needed. With `return_exceptions`
        an error takes its value's place in place of ending the walk.
        """
        return self.starmap(zip(*iterables, strict=False), return_exceptions=return_exceptions)

    def starmap(self, arguments: Iterable[Sequence[Any]], *, return_exceptions: bool = False) -> Iterator[R]:
        """As `map`, for tuples of arguments."""
        pending: deque[Future[R]] = deque()
        threads = ThreadPoolExecutor(self.at_once, thread_name_prefix=f"firkin-{self._terms.name}")
        try:
            for args in arguments:
                pending.append(threads.submit(cast("Callable[..., R]", self.remote), *args))
                if len(pending) > self.at_once:
                    yield _outcome(pending.popleft(), return_exceptions)
            while pending:
                yield _outcome(pending.popleft(), return_exceptions)
        finally:
            threads.shutdown(cancel_futures=True)

    def close(self) -> None:
        """Remove the machines; what still runs in them fails. The next call boots anew."""
        self._fleet.close()

    @functools.cached_property
    def _packed(self) -> bytes:
        """The function as it is at its first call."""
        return ship.pack_function(self.local, trusted=self._terms.trusted)

    def _hire(self, machine: Machine) -> Worker:
        terms = self._terms
        start = functools.partial(machine.start, user=terms.user, env=terms.env, stdin=True)
        return Worker(lambda argv: start(*argv), terms, self._packed)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _outcome(future: Future[R], return_exceptions: bool) -> R:
    try:
        return future.result()
    except Exception as error:
        if not return_exceptions:
            raise
        return cast("R", error)


class Options(TypedDict, total=False):
    """What `function` takes, for its twin to take too."""

    image: str | None
    memory_mib: int
    vcpus: int
    machines: int
    env: Environment
    user: str | None
    kernel: str | None
    network: str
    timeout_s: float
    trusted: bool
    raises: Sequence[type[Exception]]
    max_result: int
    settings: Settings | None


@overload
def function(function: Callable[P, R], /) -> Function[P, R]: ...


@overload
def function(**options: Unpack[Options]) -> Callable[[Callable[P, R]], Function[P, R]]: ...


def function(
    function: Callable[P, R] | None = None,
    /,
    *,
    image: str | None = None,
    memory_mib: int = 256,
    vcpus: int = 1,
    machines: int = 1,
    env: Environment = (),
    user: str | None = None,
    kernel: str | None = None,
    network: str = "default",
    timeout_s: float = TIMEOUT_S,
    trusted: bool = False,
    raises: Sequence[type[Exception]] = (),
    max_result: int = MAX_RESULT,
    settings: Settings | None = None,
) -> Any:
    """Have a function's calls run in machines, as `@firkin.function` or `@firkin.function(memory_mib=512)`.

    The image's Python must have this one's version (3.x); without `image`, firkin builds one that has. A call may take
    `timeout_s` seconds, beside the boot, and its value `max_result` bytes. The guest is not trusted: values are plain
    data (None, bool, int, float, complex, str, bytes, bytearray, and list, tuple, dict, set, frozenset of them), and
    errors come back as built-in types or those in `raises`. With `trusted` values and errors are pickles: anything
    crosses, but then whatever runs in the guest can run code here too.

    Raises:
        UsageError: this cannot be a remote function.
    """

    def decorate(function: Callable[P, R]) -> Function[P, R]:
        name = getattr(function, "__qualname__", repr(function))
        _check(function, name, machines)
        chosen = image or ship.IMAGES.get(ship.PYTHON, "python")
        terms = Terms(
            name=name, image=chosen, env=env, user=user, timeout_s=timeout_s, trusted=trusted, raises=tuple(raises),
            max_result=max_result,
        )  # fmt: skip

        def boot() -> Machine:
            from firkin.manager.opening import run

            # Another Python, which waits for input on the console, would cost memory.
            command = ("sleep", "infinity") if chosen in ship.IMAGES.values() else ()
            return run(
                chosen, memory_mib=memory_mib, vcpus=vcpus, kernel=kernel, network=network, env=env, command=command,
                settings=settings,
            )  # fmt: skip

        return Function(function, boot, terms, machines=machines, seats=vcpus)

    return decorate if function is None else decorate(function)


def _check(function: Callable[..., Any], name: str, machines: int) -> None:
    if inspect.iscoroutinefunction(function):
        raise UsageError(
            f"{name}: a coroutine cannot run in a guest", hint="write a plain `def`, and await it: firkin.aio.function"
        )
    if machines < 1:
        raise UsageError(f"{name}: machines: {machines} is less than 1", hint="machines=1")
