"""The engine as a process: what it prints, and how it ends, before any guest exists."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} \[anonymous-instance:main\] "

NO_FILE = "No such file or directory"
NO_FILE_SHOWN = f'Os {{ code: 2, kind: NotFound, message: "{NO_FILE}" }}'
A_FOLDER = 'Os { code: 21, kind: IsADirectory, message: "Is a directory" }'
NO_NUMBER = "ParseIntError { kind: InvalidDigit }"
LEVELS = "[Error, Warning, Info, Debug]"
NO_LEVEL = "Failed to parse string to level filter"
NO_FORMAT = "When printing Snapshot Data format: Unable to open snapshot state file"


def engine(*argv: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-I", "-m", "firkin.engine", *argv]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30)


def messages(output: str) -> list[str]:
    """Log lines without their stamps."""
    return [re.sub(STAMP, "", line) for line in output.splitlines()]


@pytest.mark.parametrize(("flag", "line"), [("--version", "Firecracker v1.16.1"), ("--snapshot-version", "v10.0.0")])
def test_versions_come_first_and_alone(flag: str, line: str) -> None:
    done = engine("--nonsense", flag) if flag == "--version" else engine(flag)
    assert done.returncode == 0
    assert messages(done.stdout)[0] == line
    assert messages(done.stdout)[-1] == "Firecracker exiting successfully. exit_code=0"
    assert done.stderr == ""


def test_help_names_the_version_and_the_options() -> None:
    lines = messages(engine("-h").stdout)
    assert lines[:3] == ["Firecracker v1.16.1", "", "optional arguments:"]
    assert lines[-2].startswith("  --version  ")


@pytest.mark.parametrize(
    ("argv", "code", "text", "debug"),
    [
        (
            ["--foo"],
            153,
            "Arguments parsing error: Found argument 'foo' which wasn't expected, or isn't valid in this context. ",
            'ParseArguments(UnexpectedArgument("foo"))',
        ),
        (
            ["--level", "loud"],
            152,
            f"Invalid value for logger level: {NO_LEVEL}: loud.Possible values: {LEVELS}",
            'InvalidLogLevel(LevelFilterFromStrError("loud"))',
        ),
        (
            ["--log-path", "/nowhere/log"],
            1,
            "Could not initialize logger: Failed to open target file: No such file or directory (os error 2)",
            f"LoggerInitialization(LoggerUpdateError({NO_FILE_SHOWN}))",
        ),
        (
            ["--describe-snapshot", "/nowhere"],
            1,
            f"{NO_FORMAT}: {NO_FILE} (os error 2)",
            f"PrintSnapshotDataFormat(OpenSnapshot({NO_FILE_SHOWN}))",
        ),
    ],
)
def test_a_mistake_is_told_twice_and_has_its_code(argv: list[str], code: int, text: str, debug: str) -> None:
    done = engine(*argv)
    assert done.returncode == code
    assert messages(done.stdout)[0] == text
    assert messages(done.stdout)[-1] == f"Firecracker exiting with error. exit_code={code}"
    assert done.stderr == f"Error: {debug}\n"


@pytest.mark.parametrize(
    ("argv", "text"),
    [
        (["--id", "a_b"], "Invalid instance ID: InvalidChar('_', 1)"),
        (
            ["--no-api", "--config-file", "/nowhere"],
            f"Unable to open or read from the configuration file: {NO_FILE_SHOWN}",
        ),
        (
            ["--metadata", "/"],
            f"Unable to open or read from the mmds content file: {A_FOLDER}",
        ),
        (
            ["--api-sock", "/nowhere/s", "--start-time-cpu-us", "x"],
            f"'start-time-cpu-us' parameter expected to be of 'u64' type.: {NO_NUMBER}",
        ),
        (
            ["--http-api-max-payload-size", "-1"],
            f"'http-api-max-payload-size' parameter expected to be of 'usize' type.: {NO_NUMBER}",
        ),
    ],
)
def test_a_panic_says_where_and_aborts(argv: list[str], text: str) -> None:
    done = engine(*argv)
    assert done.returncode == -signal.SIGABRT
    where, what = messages(done.stdout)[-2:]
    assert re.fullmatch(r"Firecracker panicked at firkin/engine/\w+\.py:\d+:\d+:", where)
    assert what == text


def test_a_config_file_that_is_not_text_is_a_panic_and_binds_nothing(tmp_path: Path) -> None:
    (tmp_path / "config").write_bytes(b'{"\xff":1}')
    done = engine("--api-sock", str(tmp_path / "s"), "--config-file", str(tmp_path / "config"))
    assert done.returncode == -signal.SIGABRT
    assert done.stdout.endswith('Error { kind: InvalidData, message: "stream did not contain valid UTF-8" }\n')
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("s", "Failed to open the API socket at: {path}. Check that it is not already used."),
        ("no/s", "Failed to bind and run the HTTP server: IO error: No such file or directory (os error 2)"),
        ("l" * 120, "Failed to bind and run the HTTP server: IO error: path must be shorter than SUN_LEN"),
    ],
)
def test_a_socket_that_cannot_be_bound_is_told(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / "s").touch()
    path = str(tmp_path / name)
    done = engine("--api-sock", path)
    assert done.returncode == 1
    assert messages(done.stdout)[-2] == f"RunWithApiError error: {text.format(path=path)}"
    assert (tmp_path / "s").exists()


@pytest.fixture
def running(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """An engine that waits for requests at tmp_path/s, its log in tmp_path/log."""
    command = [sys.executable, "-I", "-m", "firkin.engine", "--api-sock", str(tmp_path / "s")]
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(command, text=True, **options) as process:  # type: ignore[call-overload]
        assert process.stdout is not None
        for line in process.stdout:
            if "API server started." in line:
                break
        yield process
        process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_usual_signals_kill_as_ever(running: subprocess.Popen[str], number: signal.Signals) -> None:
    running.send_signal(number)
    assert running.wait(10) == -number


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGBUS, 149),
        (signal.SIGSEGV, 150),
        (signal.SIGXFSZ, 151),
        (signal.SIGXCPU, 154),
        (signal.SIGHUP, 156),
        (signal.SIGILL, 157),
    ],
)
def test_other_signals_have_codes_of_their_own(
    running: subprocess.Popen[str], number: signal.Signals, code: int
) -> None:
    running.send_signal(number)
    output, _ = running.communicate(timeout=10)
    assert running.returncode == code
    assert messages(output) == [f"Shutting down VM after intercepting signal {int(number)}, code 0."]


def test_a_broken_pipe_is_only_told(running: subprocess.Popen[str], tmp_path: Path) -> None:
    running.send_signal(signal.SIGPIPE)
    assert running.stdout is not None
    assert messages(running.stdout.readline()) == ["Received signal 13, code 0."]
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        client.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 \r\n")


def test_a_log_that_nobody_reads_does_not_end_the_engine(running: subprocess.Popen[str], tmp_path: Path) -> None:
    assert running.stdout is not None
    running.stdout.close()
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "s"))
        for _ in range(30):
            client.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200 \r\n")
