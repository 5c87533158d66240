"""Flags, exit codes, what is printed, and the lines of the log that clients wait for."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path

import pytest

from conformance.box import Box, box, run

STAMP = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9} "
UNTRIED = "\n\nFor more information try --help."


def test_the_version_is_the_first_line() -> None:
    ended = run("--version")
    assert ended.code == 0
    assert re.match(r"Firecracker v\d+\.\d+\.\d+\n\n", ended.stdout)
    assert re.search(
        rf"{STAMP}\[anonymous-instance:main\] Firecracker exiting successfully. exit_code=0\n", ended.stdout
    )


def test_help_shows_options_in_order() -> None:
    text = run("--help").stdout
    names = re.findall(r"^  --([a-z-]+)", text, re.MULTILINE)
    assert names == sorted(names)
    assert {"api-sock", "config-file", "metrics-path", "no-api", "version"} <= set(names)


@pytest.mark.parametrize(
    ("args", "text", "debug"),
    [
        (
            ("--foo",),
            "Found argument 'foo' which wasn't expected, or isn't valid in this context.",
            'UnexpectedArgument("foo")',
        ),
        (("--id",), "The argument 'id' requires a value, but none was supplied.", 'MissingValue("id")'),
        (("--no-api",), "Argument 'config-file' required, but not found.", 'MissingArgument("config-file")'),
        (
            ("--id", "a", "--id", "b"),
            "The argument 'id' was provided more than once.",
            'DuplicateArgument("id")',
        ),
    ],
)
def test_a_wrong_command_line_exits_with_153(args: tuple[str, ...], text: str, debug: str) -> None:
    ended = run(*args)
    assert ended.code == 153
    assert f"Arguments parsing error: {text} {UNTRIED}" in ended.stdout
    assert f"Error: ParseArguments({debug})" in ended.stderr


def test_options_that_exclude_each_other() -> None:
    ended = run("--no-seccomp", "--seccomp-filter", "f")
    assert ended.code == 153
    assert "cannot be used together with argument" in ended.stdout


def test_a_bad_level_exits_with_152() -> None:
    assert run("--level", "loud").code == 152


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("--id", "a_b"), "Invalid instance ID"),
        (("--id", "a" * 65), "Invalid instance ID"),
        (("--config-file", "/nowhere"), "Unable to open or read from the configuration file"),
        (("--metadata", "/nowhere"), "Unable to open or read from the mmds content file"),
    ],
)
def test_a_panic_aborts(tmp_path: Path, args: tuple[str, ...], text: str) -> None:
    ended = run("--api-sock", tmp_path / "api.sock", *args)
    assert ended.code == -signal.SIGABRT
    assert "Firecracker panicked at" in ended.stdout + ended.stderr
    assert text in ended.stdout + ended.stderr


def test_metrics_without_a_place_end_it(tmp_path: Path) -> None:
    ended = run("--api-sock", tmp_path / "api.sock", "--metrics-path", "/nowhere/metrics")
    assert ended.code == 1
    assert "metrics system due to bad user input: No such file or directory (os error 2)" in ended.stdout
    assert ended.stderr.startswith("Error: ")


def test_metrics_from_the_command_line_stay(tmp_path: Path) -> None:
    with box(tmp_path, "--metrics-path", tmp_path / "metrics") as opened:
        reply = opened.call("PUT", "/metrics", {"metrics_path": str(tmp_path / "other")})
    assert reply.fault.endswith("Reinitialization of metrics not allowed.")


def test_a_socket_that_is_there_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api.sock"
    path.touch()
    ended = run("--api-sock", path)
    assert ended.code == 1
    assert (
        f"RunWithApiError error: Failed to open the API socket at: {path}. Check that it is not already used."
        in ended.stdout
    )
    assert path.exists()


def test_the_log_has_the_lines_that_clients_wait_for(own: Box) -> None:
    own.call("PUT", "/machine-config", {"vcpu_count": 1, "mem_size_mib": 128})
    own.call("PUT", "/machine-config", {"vcpu_count": 0, "mem_size_mib": 128})
    own.call("GET", "/version")
    text = own.log()
    for line in (
        r"\[anonymous-instance:main\] Running Firecracker v\d",
        rf'\[anonymous-instance:main\] Listening on API socket \("{re.escape(str(own.folder))}/api.sock"\).',
        r"\[anonymous-instance:fc_api\] API server started.",
        r'fc_api\] The API server received a Put request on "/machine-config" with body "\{.*\}".',
        r"fc_api\] The request was executed successfully. Status code: 204 No Content.",
        r"fc_api\] Received Error. Status code: 400 Bad Request. Message: Machine config error: ",
        r'fc_api\] The API server received a Get request on "/version".',
        r"fc_api\] The request was executed successfully. Status code: 200 OK.",
    ):
        assert re.search(f"^{STAMP}.*{line}", text, re.MULTILINE), line


def test_a_level_and_an_id_show_in_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with box(tmp_path, "--log-path", log, "--id", "machine-1", "--show-level", "--level", "Warning") as opened:
        opened.call("PUT", "/machine-config")
    lines = log.read_text().splitlines()
    assert lines
    assert all(re.match(rf"{STAMP}\[machine-1:\w+:(WARN|ERROR)\] ", line) for line in lines)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGHUP, 156)])
def test_signals_end_it_as_upstream(own: Box, number: signal.Signals, code: int) -> None:
    own.call("GET", "/version")
    own.process.send_signal(number)
    assert own.process.wait(10) == code
    assert (own.folder / "api.sock").exists()


def config(folder: Path, **parts: object) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(parts))
    return path


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({}, "Invalid JSON: missing field `drives`"),
        ({"drives": []}, "Invalid JSON: missing field `boot-source`"),
        ({"boot-source": {"kernel_image_path": "/dev/null"}}, "Invalid JSON: missing field `drives`"),
        (
            {"boot-source": {"kernel_image_path": "/nowhere"}, "drives": []},
            "Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)",
        ),
        (
            {
                "boot-source": {"kernel_image_path": "/dev/null"},
                "drives": [{"drive_id": "a", "is_root_device": True, "path_on_host": "/nowhere"}],
            },
            (
                "Block device error: Unable to create the virtio block device: Virtio backend error: "
                "Error manipulating the backing file: No such file or directory (os error 2) /nowhere"
            ),
        ),
    ],
)
@pytest.mark.parametrize("with_api", [False, True])
def test_a_bad_config_file_ends_it(tmp_path: Path, parts: dict[str, object], text: str, with_api: bool) -> None:
    args = ("--api-sock", tmp_path / "api.sock") if with_api else ("--no-api",)
    ended = run(*args, "--config-file", config(tmp_path, **parts))
    kind = "RunWithApiError" if with_api else "RunWithoutApiError"
    assert ended.code == 1
    assert (
        f"{kind} error: Failed to build MicroVM from Json: Configuration for VMM from one single json failed: {text}"
        in ended.stdout
    )
    assert ended.stderr.startswith("Error: ")


@pytest.mark.guest
def test_a_config_file_boots_at_once_with_the_api_beside_it(tmp_path: Path, kernel: str) -> None:
    parts = {
        "boot-source": {"kernel_image_path": kernel, "boot_args": "console=ttyS0 panic=0 quiet"},
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 128},
        "ignored": 1,
        "serial": "ignored",
    }
    metrics = tmp_path / "metrics"
    with box(tmp_path, "--config-file", config(tmp_path, **parts), "--metrics-path", metrics) as opened:
        assert opened.call("GET", "/").json["state"] == "Running"
        shown = opened.call("GET", "/vm/config").json
        assert shown["boot-source"]["kernel_image_path"] == kernel
        assert "Successfully started microvm that was configured from one single json" in opened.log()
        assert opened.end() == -signal.SIGTERM
    assert len(metrics.read_text().splitlines()) >= 1


def test_a_metadata_file_fills_the_store(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text('{"a": {"b": "c"}}')
    with box(tmp_path, "--metadata", tmp_path / "data.json") as opened:
        assert opened.call("GET", "/mmds").json == {"a": {"b": "c"}}
        assert "Successfully added metadata to mmds from file" in opened.log()


def test_a_payload_limit_holds(tmp_path: Path) -> None:
    with box(tmp_path, "--http-api-max-payload-size", "50") as opened:
        reply = opened.call("PUT", "/mmds", {"a": "x" * 100})
        assert reply.status == 400
        assert b"is larger than the limit of 50 allowed by server." in reply.body
