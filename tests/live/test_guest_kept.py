"""Kept programs, against the checked agent: they outlive their connection, and ATTACH finds them again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from agent_rig import Agent

from firkin.agent.client import AgentConnection
from firkin.agent.frames import FrameReader, Kind
from firkin.agent.messages import ExitStatus, KeptProgram, decode_started
from firkin.agent.process import Process
from firkin.agent.requests import encode_attach, encode_exec, encode_window
from firkin.errors import AgentError
from firkin.host.wait import wait_until

pytestmark = pytest.mark.live

RING = 262_144


def start_and_leave(agent: Agent, script: str, *, stdin: bool = False) -> int:
    """The pid of a kept program whose connection hung up before it took any output."""
    with agent.dial() as sock:
        sock.sendall(encode_exec(["sh", "-c", script], stdin=stdin, kept=True, window=0))
        reader = FrameReader()
        while True:
            for frame in reader.feed(sock.recv(65536)):
                if frame.kind == Kind.STARTED:
                    return decode_started(frame)[0]


def ended(guest: AgentConnection, pid: int) -> bool:
    return next(program for program in guest.kept() if program.pid == pid).status is not None


def read_all(process: Process) -> list[tuple[int, bytes]]:
    """Pieces of output, joined while they are of one descriptor."""
    pieces: list[tuple[int, bytes]] = []
    for output in process:
        if pieces and pieces[-1][0] == output.fd:
            pieces[-1] = (output.fd, pieces[-1][1] + output.data)
        else:
            pieces.append((output.fd, output.data))
    return pieces


def test_a_kept_program_outlives_its_connection_and_is_taken_over(agent: Agent) -> None:
    pid = start_and_leave(agent, "echo early; read line; echo got $line; exit 4", stdin=True)
    with agent.connect() as guest, guest.attach(pid) as process:
        assert process.pid == pid
        process.write(b"late\n")
        assert b"".join(output.data for output in process) == b"early\ngot late\n"
        assert process.status == ExitStatus(code=4)
        assert guest.kept() == []  # somebody has seen it end


def test_what_was_said_comes_in_its_order_and_its_end_is_remembered(agent: Agent) -> None:
    script = "for i in 1 2 3; do echo out$i; sleep 0.05; echo err$i >&2; sleep 0.05; done; kill -9 $$"
    with agent.connect() as guest:
        pid = start_and_leave(agent, script)
        assert wait_until(lambda: ended(guest, pid), timeout_s=20)
        with guest.attach(pid) as process:
            pieces = read_all(process)
    assert pieces == [(fd, b"%s%d\n" % (name, i)) for i in (1, 2, 3) for fd, name in ((1, b"out"), (2, b"err"))]
    assert process.status == ExitStatus(signal=signal.SIGKILL)


def test_the_last_262144_bytes_are_kept(agent: Agent) -> None:
    with agent.connect() as guest:
        pid = start_and_leave(agent, "seq 1 200000; echo end")
        assert wait_until(lambda: ended(guest, pid), timeout_s=20)
        with guest.attach(pid) as process:
            said = b"".join(output.data for output in process)
    everything = b"".join(b"%d\n" % number for number in range(1, 200_001)) + b"end\n"
    assert said == everything[-RING:]


def test_what_was_kept_waits_for_credit(agent: Agent) -> None:
    pid = start_and_leave(agent, "printf 0123456789; exit 7")
    with agent.connect() as guest:
        assert wait_until(lambda: ended(guest, pid), timeout_s=20)
    with agent.dial() as sock:
        sock.sendall(encode_attach(pid, window=4, stream=9))
        reader, output, kinds = FrameReader(), b"", list[Kind]()
        while Kind.EXIT not in kinds:
            for frame in reader.feed(sock.recv(65536)):
                kinds.append(frame.kind)
                output += frame.payload if frame.kind == Kind.STDOUT else b""
            if output == b"0123":
                sock.sendall(encode_window(100, 9))
    assert (output, kinds.count(Kind.STDOUT)) == (b"0123456789", 2)


def test_a_program_that_is_not_attached_does_not_wait_for_a_reader(agent: Agent) -> None:
    with agent.connect() as guest:
        with guest.start(["sh", "-c", "head -c 3000000 /dev/zero; echo done >&2; exec sleep 60"], kept=True) as process:
            process.detach()
        assert guest.run("echo", "still here").stdout == b"still here\n"
        with guest.attach(process.pid) as again:
            errors = b""
            while not errors.endswith(b"done\n"):
                output = again.read(timeout_s=20)
                assert output is not None
                errors += output.data if output.fd == 2 else b""
            again.kill()
            assert again.wait(20) == ExitStatus(signal=signal.SIGKILL)


def test_one_connection_is_attached_at_a_time_and_an_unknown_pid_is_told(agent: Agent) -> None:
    with agent.connect() as guest, guest.start(["cat"], kept=True, stdin=True) as process:
        with pytest.raises(AgentError, match="another connection is attached"):
            guest.attach(process.pid)
        with pytest.raises(AgentError, match="no kept program has this pid"):
            guest.attach(1)
        process.close_stdin()
        assert process.wait(20) == ExitStatus(code=0)


def test_detaching_from_a_program_that_is_not_kept_ends_it(agent: Agent) -> None:
    with agent.connect() as guest, guest.start(["sleep", "60"]) as process:
        process._channel.detach(process._stream)
        with pytest.raises(AgentError, match="not a kept program"):
            process.read(timeout_s=20)
    assert wait_until(lambda: not agent.children(), timeout_s=20)


def test_kept_programs_are_listed_with_state_and_words(agent: Agent) -> None:
    with agent.connect() as guest:
        running = guest.start(["sh", "-c", "sleep 60", "x" * 3000], kept=True, tty=(24, 80))
        failed = start_and_leave(agent, "sleep 0.1; exit 3")
        assert wait_until(lambda: ended(guest, failed), timeout_s=20)
        first, second = guest.kept()
        running.kill()
        running.wait(20)
        guest.attach(failed).wait(20)
    assert first == KeptProgram(running.pid, (b"sh", b"-c", b"sleep 60", b"x" * 984), None, tty=True)
    assert second == KeptProgram(failed, (b"sh", b"-c", b"sleep 0.1; exit 3"), ExitStatus(code=3), tty=False)


def test_64_are_kept_and_the_oldest_ended_one_makes_room(agent: Agent, tmp_path: Path) -> None:
    with agent.connect() as guest:
        os.mkfifo(gate := tmp_path / "gate")
        pids = [start_and_leave(agent, f": <{gate}; exit {number} # {'x' * 2000}") for number in range(64)]
        with gate.open("wb"):  # lets all of them in
            assert wait_until(lambda: all(program.status for program in guest.kept()), timeout_s=20)
        assert [program.status for program in guest.kept()] == [ExitStatus(code=number) for number in range(64)]
        sleeper = guest.start(["sleep", "60"], kept=True)
        assert [program.pid for program in guest.kept()] == [*pids[1:], sleeper.pid]
        for pid in pids[1:]:
            guest.attach(pid).wait(20)
        more = [guest.start(["sleep", "60"], kept=True) for _ in range(63 - 1)]
        for process in [sleeper, *more]:
            process.kill()
            process.wait(20)


def test_when_all_64_run_a_65th_is_refused(agent: Agent) -> None:
    with agent.connect() as guest, agent.connect() as other:
        running = [(guest if number % 2 else other).start(["sleep", "60"], kept=True) for number in range(64)]
        with pytest.raises(AgentError, match="too many kept programs"):
            guest.start(["sleep", "60"], kept=True)
        assert len(guest.kept()) == 64
        for process in running:
            process.kill()
            process.wait(20)


def test_an_agent_that_ends_takes_kept_programs_with_it(agent: Agent) -> None:
    pid = start_and_leave(agent, "echo something; exec sleep 60")
    start_and_leave(agent, "echo something")
    agent.process.terminate()
    assert agent.process.wait(20) == 0
    assert wait_until(lambda: not Path(f"/proc/{pid}").exists(), timeout_s=20)


def test_a_flood_of_short_pieces_from_both_outputs_is_kept_whole(agent: Agent) -> None:
    script = "i=0; while [ $i -lt 3000 ]; do echo o; echo e >&2; i=$((i+1)); done; exit 1"
    pid = start_and_leave(agent, script)
    with agent.connect() as guest:
        assert wait_until(lambda: ended(guest, pid), timeout_s=20)
        result = guest.attach(pid).result()
    assert (result.stdout, result.stderr, result.returncode) == (b"o\n" * 3000, b"e\n" * 3000, 1)


def test_input_goes_on_where_it_stopped(agent: Agent) -> None:
    data = os.urandom(3_000_000)
    with agent.connect() as guest:
        with guest.start(["sh", "-c", "sleep 0.5; exec md5sum"], kept=True, stdin=True) as process:
            process.write(data[:1_050_000])
            process.detach()
        with guest.attach(process.pid) as again:
            result = again.result(stdin=data[1_050_000:])
        assert result.stdout == guest.run("md5sum", stdin=data).stdout
