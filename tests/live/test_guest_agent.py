"""The agent itself, built for this host with address and undefined-behaviour checks, against the Python client."""

from __future__ import annotations

import os
import signal
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from ipaddress import IPv6Interface
from pathlib import Path

import pytest
from agent_rig import GUEST, STRICT, Agent
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from firkin.agent.client import connect
from firkin.agent.frames import HEADER, MAGIC, MAX_PAYLOAD, VERSION, Frame, FrameReader, Kind
from firkin.agent.initrd import GuestConfig, GuestFile, Interface, render_config
from firkin.agent.messages import ExecRefused, ExitStatus, Hello
from firkin.agent.outputs import Output
from firkin.agent.requests import encode_exec, encode_window
from firkin.errors import AgentError, ExecTimeout
from firkin.host.unix import connect_unix, listen_unix
from firkin.host.wait import wait_until

pytestmark = pytest.mark.live


def test_a_program_gets_its_input_and_gives_output_errors_and_code(agent: Agent) -> None:
    with agent.connect() as guest:
        result = guest.run("sh", "-c", "cat; echo oops >&2; exit 3", stdin=b"hello")
    assert (result.returncode, result.stdout, result.stderr) == (3, b"hello", b"oops\n")


def test_arguments_never_meet_a_shell(agent: Agent) -> None:
    with agent.connect() as guest:
        assert guest.run("printf", "%s|", "$HOME", "a b", "", b"\xff").stdout == b"$HOME|a b||\xff|"


def test_megabytes_pass_both_ways_unchanged(agent: Agent) -> None:
    data = os.urandom(5_000_000)
    with agent.connect() as guest:
        assert guest.run("cat", stdin=data).stdout == data


def test_what_is_kept_is_bounded(agent: Agent) -> None:
    with agent.connect() as guest:
        result = guest.run("head", "-c", "3000000", "/dev/zero", max_output=1000)
        assert (len(result.stdout), result.truncated) == (1000, True)
        assert guest.run("echo", "next").stdout == b"next\n"


def test_a_slow_reader_slows_the_program_and_not_the_agent(agent: Agent) -> None:
    with agent.dial() as slow:
        slow.sendall(encode_exec(["cat", "/dev/zero"], window=2**32 - 1))
        time.sleep(0.3)
        with agent.connect() as other:
            assert other.run("echo", "fine").stdout == b"fine\n"


def test_stdin_may_be_a_descriptor(agent: Agent, tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.write_bytes(b"x" * 300_000)
    with agent.connect() as guest, source.open("rb") as stdin, guest.start(["cat"], stdin=True) as cat:
        cat.feed(stdin.fileno())
        assert b"".join(output.data for output in cat) == b"x" * 300_000
        assert cat.status == ExitStatus(code=0)


def test_a_program_that_does_not_read_does_not_hold_us(agent: Agent) -> None:
    with agent.connect() as guest:
        assert guest.run("sh", "-c", "exec 0<&-; sleep 0.1", stdin=bytes(1_000_000)).returncode == 0


@pytest.mark.parametrize(
    ("argv", "kwargs", "returncode", "message"),
    [
        (["no-such"], {}, 127, "no-such: No such file"),
        (["/etc/passwd"], {}, 126, "/etc/passwd: Permission denied"),
        (["true"], {"cwd": "/no/where"}, 126, "working directory /no/where"),
        (["true"], {"user": "nobody-at-all"}, 126, "user nobody-at-all: no such user"),
        (["true"], {"user": "root:no-group"}, 126, "no such user or group"),
    ],
)
def test_what_cannot_start_is_refused_and_the_connection_lives_on(
    agent: Agent, argv: list[str], kwargs: dict[str, str], returncode: int, message: str
) -> None:
    with agent.connect() as guest:
        with pytest.raises(ExecRefused, match=message) as caught:
            guest.run(*argv, cwd=kwargs.get("cwd"), user=kwargs.get("user"))
        assert caught.value.returncode == returncode
        assert guest.run("echo", "next").stdout == b"next\n"


@pytest.mark.parametrize(("number", "returncode"), [(9, 137), (15, 143)])
def test_a_signal_is_told_as_such(agent: Agent, number: int, returncode: int) -> None:
    with agent.connect() as guest:
        assert guest.run("sh", "-c", f"kill -{number} $$").returncode == returncode


def test_user_folder_and_environment_are_as_asked(agent: Agent) -> None:
    if os.geteuid() != 0:
        pytest.skip("changing the user needs root")
    with agent.connect() as guest:
        result = guest.run("sh", "-c", "id -un; pwd; echo $A $HOME", user="nobody", cwd="/tmp", env=["A=1", "A=2"])
        home = str(Path("~nobody").expanduser())
        assert result.stdout.decode().split() == ["nobody", "/tmp", "2", home]
        assert guest.run("id", "-G", user="65534:12").stdout == b"12\n"


def test_a_terminal_has_size_echo_and_control_keys(agent: Agent) -> None:
    with agent.connect() as guest, guest.start(["sh", "-i"], tty=(33, 77), stdin=True, env={"PS1": "$"}) as shell:
        shell.write(b"echo typed\nstty size\n\x04")
        screen = b"".join(output.data for output in shell)
        assert shell.status == ExitStatus(code=0)
    assert b"typed\r\n" in screen
    assert b"33 77\r\n" in screen


def test_control_c_reaches_the_foreground_program(agent: Agent) -> None:
    command = ["sh", "-c", "echo ready; exec sleep 60"]
    with agent.connect() as guest, guest.start(command, tty=(24, 80), stdin=True) as sleeper:
        for output in sleeper:
            if b"ready" in output.data:
                sleeper.write(b"\x03")
        assert sleeper.status == ExitStatus(signal=signal.SIGINT)


def test_resize_and_signal_come_from_another_thread(agent: Agent) -> None:
    script = "trap 'stty size' WINCH; echo ready; while :; do sleep 0.02; done"
    with agent.connect() as guest, guest.start(["bash", "-c", script], tty=(5, 5), stdin=True) as bash:
        while output := bash.read(timeout_s=20):
            if b"ready" in output.data:
                threading.Thread(target=bash.resize, args=(11, 22)).start()
            elif b"11 22" in output.data:
                threading.Thread(target=bash.signal, args=(signal.SIGTERM,)).start()
        assert bash.status == ExitStatus(signal=signal.SIGTERM)


def test_a_terminal_closes_with_its_program_though_others_hold_it(agent: Agent) -> None:
    command = ["sh", "-c", "sleep 60 & echo done"]
    with agent.connect() as guest, guest.start(command, tty=(24, 80)) as shell:
        done = shell.result(timeout_s=20)
    assert (done.returncode, done.stdout) == (0, b"done\r\n")


def test_a_background_child_does_not_hold_the_exit(agent: Agent) -> None:
    with agent.connect() as guest:
        result = guest.run("sh", "-c", "sleep 60 & echo $!", timeout_s=20)
    os.kill(int(result.stdout), signal.SIGKILL)  # it is the agent's child by now, which reaps it


def test_a_timeout_kills_the_whole_group_and_nothing_else(agent: Agent) -> None:
    with agent.connect() as guest:
        with guest.start(["cat"], stdin=True) as beside:
            with pytest.raises(ExecTimeout, match="still running after"):
                guest.run("sh", "-c", "sleep 61 & sleep 62", timeout_s=0.2)
            beside.write(b"alive")
            assert beside.read(timeout_s=10) == Output(1, b"alive")
        assert wait_until(lambda: not agent.children(), timeout_s=5)
        assert guest.run("echo", "next").stdout == b"next\n"


def test_hanging_up_kills_the_whole_group(agent: Agent) -> None:
    with agent.connect() as guest:
        guest.start(["sh", "-c", "sleep 61 & sleep 62"])
    assert wait_until(lambda: not agent.children(), timeout_s=5)


def test_what_is_not_read_to_its_end_is_killed_with_its_scope(agent: Agent) -> None:
    with agent.connect() as guest:
        with guest.start(["yes"]) as yes:
            assert yes.read() is not None
        assert wait_until(lambda: not agent.children(), timeout_s=5)
        assert guest.run("echo", "next").stdout == b"next\n"


def test_many_programs_run_at_once(agent: Agent) -> None:
    results: list[bytes] = []

    def one() -> None:
        with agent.connect() as guest:
            results.append(guest.run("sh", "-c", "head -c 100000 /dev/zero | wc -c").stdout.strip())

    threads = [threading.Thread(target=one) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [b"100000"] * 40


def test_many_threads_share_a_connection(agent: Agent) -> None:
    with agent.connect() as guest, ThreadPoolExecutor(32) as pool:
        wants = [b"%d\n" % number * 5000 for number in range(64)]
        echo = lambda want: guest.run("cat", stdin=want, timeout_s=60).stdout  # noqa: E731
        assert list(pool.map(echo, wants)) == wants


def test_a_thousand_in_a_row_and_64_at_once_leave_nothing(agent: Agent) -> None:
    with agent.connect() as guest:
        before = agent.descriptors()
        for number in range(1000):
            assert guest.run("sh", "-c", f"exit {number % 7}").returncode == number % 7
        programs = [guest.start(["sh", "-c", f"sleep 0.1; echo {number}"]) for number in range(64)]
        assert [program.result().text for program in programs] == [f"{number}\n" for number in range(64)]
        assert wait_until(lambda: agent.descriptors() == before, timeout_s=5)


def test_streams_share_a_connection(agent: Agent) -> None:
    received: dict[int, bytes] = {}
    exits: set[int] = set()
    with agent.dial() as sock:
        for stream in range(1, 11):
            sock.sendall(encode_exec(["sh", "-c", f"sleep 0.05; echo {stream}"], window=4096, stream=stream))
        reader = FrameReader()
        while len(exits) < 10:
            for frame in reader.feed(sock.recv(65536)):
                if frame.kind == Kind.STDOUT:
                    received[frame.stream] = frame.payload
                if frame.kind == Kind.EXIT:
                    exits.add(frame.stream)
    assert received == {stream: b"%d\n" % stream for stream in range(1, 11)}


def test_output_stops_at_the_credit_and_goes_on_with_more(agent: Agent) -> None:
    with agent.dial() as sock:
        sock.sendall(encode_exec(["sh", "-c", "printf 0123456789"], window=4))
        reader, output, frames = FrameReader(), b"", list[Frame]()
        while len(output) < 4:
            frames = list(reader.feed(sock.recv(65536)))
            output += b"".join(frame.payload for frame in frames if frame.kind == Kind.STDOUT)
        assert output == b"0123"
        sock.sendall(encode_window(100, 1))
        while not any(frame.kind == Kind.EXIT for frame in frames):
            frames = list(reader.feed(sock.recv(65536)))
            output += b"".join(frame.payload for frame in frames if frame.kind == Kind.STDOUT)
    assert output == b"0123456789"


def test_sync_answers_and_poweroff_is_refused_where_no_machine_is(agent: Agent) -> None:
    with agent.connect() as guest:
        guest.sync()
        with pytest.raises(AgentError, match="no machine to end"):
            guest.poweroff()


@pytest.mark.parametrize(
    "bytes_sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        Frame(Kind.EXEC).encode(),
        HEADER.pack(MAGIC, Kind.HELLO, 0, 0, 70000),
        Hello(3, 4).encode(),
        Hello().encode() + Frame(Kind(Kind.EXIT), bytes(8), 1).encode(),
        Hello().encode() + encode_exec(["sleep", "60"], stdin=True) + Frame(Kind.STDIN, bytes(65536), 1).encode() * 20,
    ],
)
def test_a_peer_that_breaks_the_protocol_is_told_and_hung_up_on(agent: Agent, bytes_sent: bytes) -> None:
    with connect_unix(agent.path, 10.0) as sock:
        answer = b""
        try:
            sock.sendall(bytes_sent)
            while piece := sock.recv(65536):
                answer += piece
        except (ConnectionResetError, BrokenPipeError):
            pass  # hung up with our bytes unread, or not even sent
    kinds = [frame.kind for frame in FrameReader().feed(answer)]
    assert not kinds or kinds[-1] == Kind.ERROR


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.lists(st.tuples(st.integers(1, 16), st.integers(0, 255), st.binary(max_size=80)), max_size=6))
def test_no_frames_whatever_harm_the_agent(agent: Agent, frames: list[tuple[int, int, bytes]]) -> None:
    with connect_unix(agent.path, 10.0) as sock:
        try:
            sock.sendall(Hello().encode())
            for kind, flags, payload in frames:
                sock.sendall(Frame(Kind(kind), payload, 1, flags).encode())
        except OSError:
            pass  # it hung up already
    assert agent.process.poll() is None


def test_execs_with_broken_lengths_are_refused(agent: Agent) -> None:
    good = encode_exec(["true"], window=100)[HEADER.size :]
    blobs = (8, 17, 21, 25)  # where argv, environment, folder and user have their lengths
    broken = [good[:at] + struct.pack("<I", 2**31) + good[at + 4 :] for at in blobs]
    broken += [good[:at] for at in range(len(good))]
    with agent.dial() as sock:
        for number, payload in enumerate(broken, start=1):
            sock.sendall(Frame(Kind.EXEC, payload, number).encode())
        reader, refused = FrameReader(), 0
        while refused < len(broken):
            refused += sum(frame.kind == Kind.ERROR for frame in reader.feed(sock.recv(65536)))


def test_the_frames_are_what_both_sides_think() -> None:
    header = (GUEST / "src/frames.h").read_text()
    assert f"FRAME_MAX_PAYLOAD = {MAX_PAYLOAD}," in header
    assert f"PROTOCOL_VERSION = {VERSION}," in header
    assert f"FRAME_MAGIC = {MAGIC:#x}," in header


def serve_handshakes(server: socket.socket, agent_path: Path, answers: list[bytes]) -> None:
    """The VMM's part: one connection per answer, joined to the agent where the answer is OK."""
    for answer in answers:
        client, _ = server.accept()
        with client:
            assert client.recv(64) == b"CONNECT 1024\n"
            client.sendall(answer)
            if answer.startswith(b"OK "):
                with connect_unix(agent_path, 5.0) as inner:
                    pumps = [threading.Thread(target=pump, args=pair) for pair in ((client, inner), (inner, client))]
                    for thread in pumps:
                        thread.start()
                    for thread in pumps:
                        thread.join()


def pump(source: socket.socket, target: socket.socket) -> None:
    while data := source.recv(65536):
        target.sendall(data)
    target.shutdown(socket.SHUT_RDWR)


def test_connect_shakes_hands_with_the_vmm_and_tries_again(agent: Agent, tmp_path: Path) -> None:
    with listen_unix(tmp_path / "v.sock") as server:
        vmm = threading.Thread(target=serve_handshakes, args=(server, agent.path, [b"", b"NO\n", b"OK 1073741824\n"]))
        vmm.start()
        with connect(tmp_path / "v.sock", 10.0) as guest:
            assert guest.run("echo", "through").stdout == b"through\n"
        vmm.join()


def test_connect_gives_up_in_time(tmp_path: Path) -> None:
    with pytest.raises(AgentError, match="no agent answers") as caught:
        connect(tmp_path / "nobody.sock", 0.1)
    assert "console" in caught.value.hint


@pytest.fixture(scope="session")
def dump(native: Path) -> Callable[[bytes], tuple[int, dict[str, list[str]]]]:
    """What the guest makes of a configuration."""

    def run(config: bytes) -> tuple[int, dict[str, list[str]]]:
        done = subprocess.run(
            [native / "config-dump"], input=config, capture_output=True, check=False, env={**os.environ, **STRICT}
        )
        if done.returncode != 0:
            message = done.stderr.decode()
            assert message.startswith("firkin-init: /firkin.conf line "), message
            assert message.count("\n") == 1, message
        understood: dict[str, list[str]] = {}
        for line in done.stdout.decode().splitlines():
            key, _, value = line.partition(" ")
            understood.setdefault(key, []).append(value)
        return done.returncode, understood

    return run


Dump = Callable[[bytes], tuple[int, dict[str, list[str]]]]
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(args=st.lists(text, max_size=4), data=st.binary(max_size=200), value=text)
def test_the_guest_understands_what_the_host_writes(dump: Dump, args: list[str], data: bytes, value: str) -> None:
    config = GuestConfig(
        entrypoint=tuple(args), env=(f"NAME={value}",), files=(GuestFile("/a/b", data, 0o4751, 7, 8),), seed=data,
        interfaces=(Interface("06:00:ac:1f:00:02", IPv6Interface("fd00::2/64")),),
    )  # fmt: skip
    returncode, understood = dump(render_config(config))
    assert returncode == 0
    assert understood.get("arg", []) == [word.encode().hex() for word in args]
    assert understood["env"] == [f"NAME={value}".encode().hex()]
    assert (understood["file"][-1], understood["data"][-1]) == ("4751 7 8", data.hex())
    assert understood["seed"] == [data.hex()]
    assert (understood["mac"], understood["prefix"]) == (["0600ac1f0002"], ["64"])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_configuration_harms_the_guest(dump: Dump, noise: bytes, at: int) -> None:
    good = render_config(GuestConfig(entrypoint=("sh",), files=(GuestFile("/a", b"x"),)))
    dump(good[:at] + noise + good[at:])


@pytest.mark.parametrize(
    "lines",
    [
        b"",
        b"root /dev/vda squashfs\n",
        b"firkin 2\nroot /dev/vda squashfs\n",
        b"firkin 1\n",
        b"firkin 1\nroot /dev/vda\n",
        b"firkin 1\nroot /dev/vda squashfs",
        b"firkin 1\ncolour blue\n",
        b"firkin 1\nhostname a%00b\n",
        b"firkin 1\nhostname a%4\n",
        b"firkin 1\ninterface 06:00:00:00:00:01 10.0.0.2\n",
        b"firkin 1\ninterface 06:00:00:00:00:01 10.0.0.2/33\n",
        b"firkin 1\ninterface 06:00:00:00:00:01 10.0.0.2/24 fd00::1\n",
        b"firkin 1\ninterface 06-00-00-00-00-01 10.0.0.2/24\n",
        b"firkin 1\nfile 999 0 0 /a b\n",
        b"firkin 1\nfile 644 -1 0 /a b\n",
        b"firkin 1\nfile 644 0 0 a b\n",
        b"firkin 1\nenv =x\n",
        b"firkin 1\n" + b"arg x\n" * 257,
    ],
)
def test_a_wrong_configuration_is_named_by_its_line(dump: Dump, lines: bytes) -> None:
    assert dump(lines)[0] == 1
