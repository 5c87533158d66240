"""The Python SDK beside itself: asyncio's commands and a function's calls against `Machine.exec` of the same run.

Needs the images busybox and python and the kernel `build` at hand.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import firkin
from firkin import aio
from firkin.manager.context import Context
from firkin.settings import Settings, load

CALLS = 200
AT_ONCE = 64
ROUNDS = 5


def borrow(folder: Path) -> Settings:
    """A home of our own that has what the user's has."""
    lender = Context(load(os.environ))
    (folder / "blobs").symlink_to(lender.paths.home / "blobs")
    settings = load({"FIRKIN_HOME": str(folder), "FIRKIN_KERNEL": "build"})
    borrower = Context(settings)
    for kernel in lender.kernels.all():
        borrower.kernels.put(kernel)
    for image in lender.images.all():
        borrower.images.put(image)
    return settings


def median_ms(act: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


async def median_ms_awaited(act: Callable[[], Awaitable[object]], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        await act()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def show(what: str, took_ms: float, base_ms: float) -> None:
    print(f"{what:52} {took_ms:9.2f} ms   {took_ms / base_ms:6.2f} of exec", flush=True)


async def awaited(machine: firkin.Machine, base_ms: float) -> None:
    twin = aio.Machine(machine)
    await twin.exec("true")
    show("aio: exec of `true`", await median_ms_awaited(lambda: twin.exec("true"), CALLS), base_ms)
    many = await median_ms_awaited(lambda: asyncio.gather(*(twin.exec("true") for _ in range(AT_ONCE))), ROUNDS)
    show(f"aio: {AT_ONCE} at once, each", many / AT_ONCE, base_ms)
    twin.close()


def commands(settings: Settings) -> None:
    with firkin.run("busybox", memory_mib=128, settings=settings) as machine, ThreadPoolExecutor(AT_ONCE) as threads:
        machine.exec("true")
        base_ms = median_ms(lambda: machine.exec("true"), CALLS)
        show("exec of `true`, connection held", base_ms, base_ms)
        many = median_ms(lambda: list(threads.map(lambda _: machine.exec("true"), range(AT_ONCE))), ROUNDS)
        show(f"threads: {AT_ONCE} at once, each", many / AT_ONCE, base_ms)
        asyncio.run(awaited(machine, base_ms))


def add(a: int, b: int) -> int:
    return a + b


def functions(settings: Settings) -> None:
    with firkin.run("python", memory_mib=128, settings=settings) as machine:
        machine.exec("true")
        base_ms = median_ms(lambda: machine.exec("true"), CALLS)
        show("python image: exec of `true`", base_ms, base_ms)
        show(
            "python image: exec of `python3 -c pass`", median_ms(lambda: machine.exec("python3", "-c", ""), 10), base_ms
        )
    with firkin.function(memory_mib=128, settings=settings)(add) as function:
        show("function: first call, boot included", median_ms(lambda: function(1, 2), 1), base_ms)
        show("function: a call after it", median_ms(lambda: function(1, 2), CALLS), base_ms)


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="firkin-bench-") as folder:
        settings = borrow(Path(folder))
        commands(settings)
        functions(settings)


if __name__ == "__main__":
    main()
