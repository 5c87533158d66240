"""firkin for asyncio, against a real machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

from firkin import aio
from firkin.agent.messages import ExecRefused
from firkin.agent.records import FileChange
from firkin.errors import AgentError, ExecFailed, ExecTimeout, GuestError, NotFound
from firkin.manager.firkin import Firkin
from firkin.settings import Settings, load
from firkin.store.machines import State

pytestmark = pytest.mark.live

T = TypeVar("T")
Test = Callable[[aio.Machine], Awaitable[T]]


@pytest.fixture
def settings(home: Path) -> Settings:
    return load({"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build"})


@pytest.fixture
def within(settings: Settings) -> Iterator[Callable[[Test[T]], T]]:
    """Run a coroutine function with a machine."""

    async def with_machine(test: Test[T]) -> T:
        async with await aio.run("busybox", memory_mib=128, settings=settings) as machine:
            return await test(machine)

    yield lambda test: asyncio.run(with_machine(test))
    with Firkin(settings) as opened:
        assert opened.records() == []


async def programs(machine: aio.Machine, name: str) -> int:
    """How many run in the guest under that name, once that has come to rest."""
    count = -1
    for _ in range(100):
        result = await machine.exec("pidof", name)
        if (now := len(result.stdout.split())) == count:
            return now
        count = now
        await asyncio.sleep(0.02)
    return count


def test_a_command_runs_and_answers(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        assert (await machine.exec("hostname")).text == f"{machine.name}\n"
        result = await machine.exec(
            "sh", "-c", 'cat; echo "$A" >&2; pwd; exit 7', env={"A": "b"}, cwd="/tmp", input=b"x"
        )
        assert (result.returncode, result.stdout, result.stderr) == (7, b"x/tmp\n", b"b\n")
        with pytest.raises(ExecRefused) as refusal:
            await machine.exec("nosuch")
        assert refusal.value.returncode == 127
        with pytest.raises(ExecFailed, match="exited with 1"):
            await machine.exec("false", check=True)

    within(test)


def test_much_data_passes_both_ways(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        data = os.urandom(4 << 20)
        assert (await machine.exec("cat", input=data)).stdout == data
        result = await machine.exec("head", "-c", "3000000", "/dev/zero", max_output=1000)
        assert (len(result.stdout), result.truncated) == (1000, True)

    within(test)


def test_a_program_is_streamed_fed_and_signalled(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        async with await machine.start(
            "sh", "-c", "echo one; read x; echo $x >&2; exec sleep 60", stdin=True
        ) as process:
            assert await process.read(10) == (1, b"one\n")
            with pytest.raises(TimeoutError):
                await process.read(0.05)
            await process.write(b"two\n")
            assert await process.read(10) == (2, b"two\n")
            process.signal(15)
            assert [piece async for piece in process] == []
            assert process.status is not None
            assert process.status.signal == 15

    within(test)


def test_a_descriptor_feeds_a_program(within: Callable[[Test[None]], None], tmp_path: Path) -> None:
    async def test(machine: aio.Machine) -> None:
        (tmp_path / "file").write_bytes(b"from a file")
        ours, theirs = os.pipe()
        with (tmp_path / "file").open("rb") as file:
            for fd, said in ((file.fileno(), b"from a file"), (ours, b"from a pipe")):
                async with await machine.start("cat", stdin=True) as process:
                    process.feed(fd)
                    if fd == ours:
                        os.write(theirs, said)
                        os.close(theirs)
                    assert b"".join([piece.data async for piece in process]) == said
        os.close(ours)

    within(test)


def test_cancelling_kills_the_program_in_the_guest(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        task = asyncio.create_task(machine.exec("sleep", "1234"))
        while await programs(machine, "sleep") == 0:
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await programs(machine, "sleep") == 0
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(machine.exec("sleep", "1234"), 0.3)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3), await machine.start("sleep", "1234") as process:
                await process.wait()
        assert await programs(machine, "sleep") == 0

    within(test)


def test_a_time_limit_kills_the_whole_group(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        with pytest.raises(ExecTimeout, match=r"sh: still running after 0\.4 s"):
            await machine.exec("sh", "-c", "sleep 1234 & sleep 1234", timeout_s=0.4)
        assert await programs(machine, "sleep") == 0

    within(test)


def test_hundreds_at_once_need_no_threads(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        await machine.exec("true")
        threads, files = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        results = await asyncio.gather(*(machine.exec("echo", str(n)) for n in range(600)))
        assert [result.text for result in results] == [f"{n}\n" for n in range(600)]
        assert threading.active_count() <= threads + 8  # those that shake hands for a connection
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < files + 64 * 1024

    within(test)


def test_one_slow_reader_holds_up_nobody(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        async with await machine.start("cat", "/dev/zero") as flood:
            await asyncio.sleep(0.2)
            began = time.monotonic()
            await machine.exec("true")
            assert time.monotonic() - began < 2
            first = await flood.read()
            assert first is not None

    within(test)


def test_a_kept_program_outlives_its_connection(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        process = await machine.start("sh", "-c", "echo begun; sleep 1; echo done; exit 3", kept=True)
        await process.detach()
        machine.close()
        [kept] = await machine.kept()
        assert kept.pid == process.pid
        async with await machine.attach(process.pid) as again:
            result = await again.result()
        assert (result.stdout, result.returncode) == (b"begun\ndone\n", 3)

    within(test)


def test_the_machines_end_is_told_to_who_waits(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        with pytest.raises(GuestError, match="still running"):
            await machine.wait(0.1)
        waiting = asyncio.create_task(machine.wait(20))
        with contextlib.suppress(AgentError):  # unless the program's own end comes first
            await machine.exec("sh", "-c", "kill -TERM 1; sleep 1234")
        await waiting

    within(test)


def test_a_handle_works_on_one_loop_after_another(settings: Settings) -> None:
    machine = asyncio.run(aio.run("busybox", memory_mib=128, settings=settings))

    async def test() -> None:
        assert (await machine.exec("true")).returncode == 0
        machine.close()

    asyncio.run(test())
    asyncio.run(test())
    asyncio.run(machine.remove(force=True))


def test_what_was_there_is_only_hung_up_on(settings: Settings) -> None:
    async def test() -> None:
        await aio.run("busybox", name="web", memory_mib=128, detach=True, settings=settings)
        async with await aio.get("web", settings=settings) as machine:
            assert (await machine.exec("true")).returncode == 0
        async with aio.Firkin(settings) as firkin:
            assert [record.state for record in await firkin.records()] == [State.RUNNING]
            await (await firkin.machine("web")).remove(force=True)
        with pytest.raises(NotFound):
            await aio.get("web", settings=settings)

    asyncio.run(test())


@pytest.mark.parametrize("after_s", [0.02, 0.2, 0.5])
def test_cancelling_a_boot_leaves_no_machine(settings: Settings, after_s: float) -> None:
    async def test() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(aio.run("busybox", memory_mib=128, settings=settings), after_s)
        async with aio.Firkin(settings) as firkin:
            assert await firkin.records() == []

    asyncio.run(test())


def double(n: int) -> int:
    time.sleep(0 if n < 100 else 60)
    return n * 2


@pytest.mark.slow
def test_a_function_is_awaited_mapped_and_cancelled(settings: Settings) -> None:
    async def test() -> None:
        async with aio.function(memory_mib=128, settings=settings)(double) as function:
            assert await function(21) == 42
            assert [n async for n in function.map(range(4))] == [0, 2, 4, 6]
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(function.remote(100), 0.5)
            assert await function.remote(1) == 2
            assert time.monotonic() - began < 30

    asyncio.run(test())


def test_files_logs_and_statistics_are_awaited(within: Callable[[Test[None]], None], tmp_path: Path) -> None:
    async def test(machine: aio.Machine) -> None:
        await machine.fs.write_text("/root/a", "text")
        assert await machine.fs.read_text("/root/a") == "text"
        assert [entry.name for entry in await machine.fs.as_user("root").within(5).list("/root")] == ["a"]
        assert (await machine.copy_out("/root/a", tmp_path / "b")).size > 0
        assert (tmp_path / "b").read_text() == "text"
        assert b"".join([piece async for piece in machine.archive_out("/root/a")]).count(b"text") == 1
        assert any([b"agent ready" in line.text async for line in machine.logs()])
        assert (await machine.stats()).guest is not None
        assert any(process.pid == 1 for process in await machine.top())

    within(test)


def test_a_folder_is_watched(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        async with await machine.fs.watch("/root") as watch:
            await machine.fs.write_text("/root/new", "x")
            event = await watch.next(10)
            assert event is not None
            assert event.path == "new"
            await machine.fs.remove("/root/new")
            async for event in watch:
                if event.change is FileChange.DELETED:
                    break
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(watch.next(), 0.2)

    within(test)


def test_following_a_log_can_be_left(within: Callable[[Test[None]], None]) -> None:
    async def test(machine: aio.Machine) -> None:
        async def follow() -> None:
            async for _ in machine.logs(follow=True):
                await asyncio.sleep(0)

        with pytest.raises(TimeoutError):
            await asyncio.wait_for(follow(), 0.3)

    within(test)
