"""Engines from a zygote: they are what others are, and whatever becomes of it, each machine has one engine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import zygote_rig as rig
from zygote_rig import Request, Yard, is_ours

import firkin.engine
from firkin.host import netns
from firkin.host.process import ProcessRef, with_argument
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec
from firkin.vmm import backend

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)


@pytest.fixture
def yard(tmp_path: Path) -> Iterator[Yard]:
    with Yard(tmp_path) as yard:
        yield yard


def gone(*refs: ProcessRef) -> bool:
    return wait_until(lambda: not any(ref.alive() for ref in refs), timeout_s=10)


def test_guests_boot_in_engines_of_a_zygote(firkin: Firkin) -> None:
    zygote = firkin.context.zygote
    assert zygote is not None
    first = firkin.run(SPEC)
    assert is_ours(first.process())
    assert wait_until(zygote.socket.exists, timeout_s=20)
    second = firkin.run(SPEC)
    assert not is_ours(second.process())
    for machine in (first, second):
        assert machine.exec("hostname").stdout.decode().strip() == machine.name
        netns_name = machine.network.netns
        assert netns_name is not None
        own = Path(f"/proc/{machine.process().pid}/ns/net").stat().st_ino
        assert own == (netns.FOLDER / netns_name).stat().st_ino
    zygote.end()
    assert second.exec("echo", "still here").stdout == b"still here\n"
    engine = second.process()
    second.remove(force=True)
    assert not engine.alive()
    assert with_argument("--id", second.id) == []


def test_proc_tells_no_difference(yard: Yard) -> None:
    yard.warm()
    (warm_id, warm), (cold_id, cold) = yard.station(), yard.station(warm=False)
    forked, started = yard.spawn_at(warm_id, warm), yard.spawn_at(cold_id, cold)
    assert not is_ours(forked)
    assert is_ours(started)
    facts = [lambda: rig.facts(forked, warm.run), lambda: rig.facts(started, cold.run)]
    wait_until(lambda: facts[0]() == facts[1](), timeout_s=5)  # until they have seen their clients go
    assert facts[0]() == facts[1]()


def test_an_engine_takes_over_the_limits_of_who_asks(yard: Yard) -> None:
    yard.warm()
    before, former = yard.zygote.socket, os.umask(0o027)
    try:
        assert yard.zygote.socket != before
        cold = yard.spawn()  # our zygote is no more the right one, and another is started
        assert is_ours(cold)
        yard.warm()
        ref = yard.spawn()
        assert not is_ours(ref)
        assert "Umask:\t0027" in Path(f"/proc/{ref.pid}/status").read_text()
        yard.zygote.end()
    finally:
        os.umask(former)


def test_the_zygote_makes_no_engine_for_who_lives_otherwise(yard: Yard) -> None:
    zygote = yard.warm()
    program = f"""
        import os, resource, sys
        sys.path[:0] = {sys.path!r}
        os.setgroups([7])
        from pathlib import Path
        from zygote_rig import Request, order
        from types import SimpleNamespace
        print(Request(SimpleNamespace(socket=Path({str(yard.zygote.socket)!r})), order("otherwise")).answer())
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout == "{'refused': 'the zygote lives under other conditions'}\n", done.stderr
    assert zygote.alive()


def test_engines_outlive_a_killed_zygote_and_the_next_one_replaces_it(yard: Yard) -> None:
    zygote = yard.warm()
    first = yard.spawn()
    os.kill(zygote.pid, signal.SIGKILL)
    assert gone(zygote)
    assert first.alive()
    second = yard.spawn()
    assert is_ours(second)
    assert wait_until(lambda: not is_ours(yard.spawn()), timeout_s=20)
    assert first.alive()
    assert zygote not in yard.zygotes()


def test_a_zygote_that_hangs_costs_a_second_once(yard: Yard) -> None:
    zygote = yard.warm()
    os.kill(zygote.pid, signal.SIGSTOP)
    began = time.monotonic()
    ref = yard.spawn()
    assert time.monotonic() - began < 5
    assert is_ours(ref)
    assert not zygote.alive()


def test_a_zygote_killed_with_a_request_in_its_hands_leaves_one_engine(yard: Yard) -> None:
    zygote = yard.warm()
    os.kill(zygote.pid, signal.SIGSTOP)
    timer = threading.Timer(0.3, os.kill, (zygote.pid, signal.SIGKILL))
    timer.start()
    ref = yard.spawn()  # sees to it that there is exactly one
    timer.join()
    assert is_ours(ref)


def test_kills_at_any_moment_leave_one_engine_each(yard: Yard) -> None:
    for round_ in range(12):
        zygote = yard.warm()
        timer = threading.Timer(round_ * 0.0015, os.kill, (zygote.pid, signal.SIGKILL))
        timer.start()
        yard.spawn()
        timer.join()
        assert gone(zygote)
    yard.zygote.end()
    assert wait_until(lambda: len(yard.processes()) == 12, timeout_s=5)


def test_an_engine_that_nobody_bids_go_never_was(yard: Yard) -> None:
    yard.warm()
    request = Request(yard.zygote, rig.order(f"{yard.tag}-taken-back"))
    engine = ProcessRef.of(int(str(request.answer()["pid"])))
    assert engine is not None
    assert with_argument("--id", f"{yard.tag}-taken-back") == [engine]  # whoever undoes it would find it
    request.close()
    assert gone(engine)
    assert not Path(f"/tmp/{yard.tag}-taken-back.sock").exists()


def test_an_idle_zygote_goes(tmp_path: Path) -> None:
    with Yard(tmp_path, idle_s=1) as yard:
        zygote = yard.warm()
        assert not is_ours(yard.spawn())
        assert gone(zygote)
        assert not yard.zygote.socket.exists()
        assert yard.last_words() == ""
        assert is_ours(yard.spawn())


def test_a_zygote_goes_with_its_folder(yard: Yard) -> None:
    zygote = yard.warm()
    yard.zygote.socket.unlink()
    assert gone(zygote)


def test_what_is_installed_anew_is_never_forked_from_the_old(yard: Yard) -> None:
    old = yard.warm()
    source = Path(firkin.engine.__file__).with_name("loop.py")
    source.chmod(source.stat().st_mode)  # to the kernel this is a change like any other
    assert is_ours(yard.spawn())
    assert gone(old)
    new = yard.warm()
    assert new != old
    assert not is_ours(yard.spawn())


def test_an_engine_starts_where_no_zygote_can(yard: Yard) -> None:
    yard.zygote.folder.write_text("in the way")
    assert is_ours(yard.spawn())
    assert yard.zygotes() == []
    yard.zygote.folder.unlink()


def test_two_homes_have_a_zygote_each(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    with Yard(tmp_path / "a") as first, Yard(tmp_path / "b") as second:
        ours, theirs = first.warm(), second.warm()
        assert ours != theirs
        first.zygote.end()
        assert theirs.alive()
        assert is_ours(first.spawn())
        assert not is_ours(second.spawn())


def test_twenty_at_once(yard: Yard) -> None:
    zygote = yard.warm()
    yard.spawn()
    held = rig.open_descriptors(zygote)
    before = yard.processes()
    stations = [yard.station() for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        refs = list(pool.map(lambda each: yard.spawn_at(*each), stations))
    assert len(set(refs)) == 20
    assert not any(map(is_ours, refs))
    assert yard.processes() - before == set(refs)
    assert wait_until(lambda: rig.open_descriptors(zygote) == held, timeout_s=5)
    assert Path(f"/proc/{zygote.pid}/task/{zygote.pid}/children").read_text() == ""


@pytest.mark.parametrize("text", [b"", b"\0\xff", b"[]", b'{"argv": [], "environ": {}}', b'{"argv": ["/bin/sh"]}'])
def test_garbage_is_refused(yard: Yard, text: bytes) -> None:
    zygote = yard.warm()
    with Request(yard.zygote, text) as request:
        assert "refused" in request.answer()
    assert yard.zygotes() == [zygote]


def hostile(yard: Yard) -> Iterator[Callable[[], Request]]:
    argv = [*backend.FIRKIN_VMM, "--id", "hostile"]
    many = list(range(3)) * 40
    yield lambda: Request(yard.zygote, {"argv": [*argv, "x" * 100_000], "environ": {}})  # does not fit the request
    yield lambda: Request(yard.zygote, {"argv": [*argv, "x" * 20_000], "environ": {}})  # does not fit /proc
    yield lambda: Request(yard.zygote, {"argv": argv, "environ": {"A=B": "\0"}})
    yield lambda: Request(yard.zygote, rig.order("hostile"), many)
    yield lambda: Request(yard.zygote, rig.order("hostile"), [])
    yield lambda: Request(yard.zygote, rig.order("hostile"), [0, 0, 0, 0, 0])  # no folder, no namespace


def test_hostile_requests_are_refused_and_leave_nothing(yard: Yard) -> None:
    zygote = yard.warm()
    held = rig.open_descriptors(zygote)
    for send in hostile(yard):
        with send() as request:
            assert "refused" in request.answer()
    Request(yard.zygote, rig.order("hostile"), []).close()  # nobody waits for the answer
    engine = yard.spawn()
    assert not is_ours(engine)
    assert wait_until(lambda: rig.open_descriptors(zygote) == held, timeout_s=5)
    assert yard.processes() == {zygote, engine}


def test_another_user_gets_nothing(yard: Yard) -> None:
    zygote = yard.warm()
    program = f"""
        import os, socket
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        os.chdir({str(yard.zygote.folder)!r})
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as door:
            door.connect({yard.zygote.socket.name!r})
            socket.send_fds(door, [b"please"], [theirs.fileno()])
            theirs.close()
            print(ours.recv(4096).decode())
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    kept_out = subprocess.run(command, capture_output=True, text=True)
    assert "PermissionError" in kept_out.stderr
    yard.zygote.folder.chmod(0o777)
    yard.zygote.socket.chmod(0o777)
    assert subprocess.run(command, capture_output=True, text=True).stdout == '{"refused":"another user\'s request"}\n'
    assert zygote.alive()
    assert is_ours(yard.spawn())  # and we do not hand our descriptors into a folder that others may change
    yard.zygote.folder.chmod(0o700)


def test_it_works_without_privileges(tmp_path: Path) -> None:
    program = f"""
        import sys
        sys.path[:0] = {sys.path!r}
        from pathlib import Path
        from zygote_rig import Yard, is_ours
        with Yard(Path({str(tmp_path)!r})) as yard:
            yard.warm()
            print(is_ours(yard.spawn()), is_ours(yard.spawn(warm=False)))
    """
    command = ["unshare", "--user", "--map-user=1000", "--map-group=1000", sys.executable, "-c"]
    done = subprocess.run([*command, textwrap.dedent(program)], capture_output=True, text=True)
    assert done.stdout == "False True\n", done.stderr


def test_turned_off_there_is_none(tmp_path: Path, home: Path) -> None:
    from firkin.settings import load

    with Firkin(load({"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build", "FIRKIN_ZYGOTE": "0"})) as firkin:
        assert firkin.context.zygote is None
        with firkin.run(SPEC) as machine:
            assert is_ours(machine.process())
        assert not firkin.context.paths.zygotes.exists()
