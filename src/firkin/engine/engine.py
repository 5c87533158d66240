"""The engine itself: API server and one guest on one loop, wired together and taken apart again."""

from __future__ import annotations

import errno
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from firkin.engine import args
from firkin.engine.exits import Fatal, Panic
from firkin.engine.journal import API, Journal
from firkin.engine.loop import Loop
from firkin.engine.server import ApiServer

if TYPE_CHECKING:
    from firkin.engine.vmm import Vmm

_IDLE_S = 0.01  # whoever has asked for nothing by then is likely to load a snapshot, some time

# Accepted so that a command line written for Firecracker works; each is said in the log to have no effect.
_WITHOUT_EFFECT = {
    "enable-pci": "devices stay on virtio-mmio",
    "seccomp-filter": "QEMU's own filter is used",
}


def run(arguments: args.Arguments, journal: Journal) -> int:
    """Serve until the guest ends; the exit code.

    Raises:
        Fatal, Panic: the engine cannot start.
        Intercepted: a signal ends it.
    """
    for name, what in _WITHOUT_EFFECT.items():
        if name in arguments.flags or name in arguments.values:
            journal.warn(f"--{name} has no effect: {what}.")
    config, metadata = _read(arguments, "config-file", "configuration"), _read(arguments, "metadata", "mmds content")
    payload_limit = arguments.number("http-api-max-payload-size") or 0
    mmds_limit = arguments.number("mmds-size-limit")
    loop = Loop()
    with ExitStack() as undo:
        server = None if "no-api" in arguments.flags else _listen(loop, arguments, journal)
        if server is not None:
            undo.callback(server.close)
        # From here on clients may connect; what follows is slow to import.
        from firkin.engine.accel import Choice
        from firkin.engine.controller import Controller
        from firkin.engine.session import Session

        session = Session(
            loop,
            journal,
            sandbox="no-seccomp" not in arguments.flags,
            accel=Choice(arguments.value("accel")),
            boot_timer="boot-timer" in arguments.flags,
        )
        undo.callback(session.close)
        undo.push(lambda _kind, error, _trace: session.end_metrics(error))
        if (path := arguments.get("metrics-path")) is not None:
            _open_metrics(session.vmm, path)
        session.vmm.mmds_size_limit = payload_limit if mmds_limit is None else mmds_limit
        if metadata is not None:
            session.add_metadata(metadata)
        if config is not None:
            session.boot(config, with_api=server is not None)
        if server is not None:
            session.vmm.start_up = _start_up(arguments.start_times())
            server.serve(Controller(session.vmm).answer, payload_limit)
            journal.info("API server started.", thread=API)
            loop.later(_IDLE_S, lambda: _get_ready(session.vmm))
        return loop.run()


def _get_ready(vmm: Vmm) -> None:
    if not vmm.started and not vmm.boot_specific:
        from firkin.engine import preload

        preload.for_load()


def _open_metrics(vmm: Vmm, path: str) -> None:
    from firkin.engine.faults import Fault
    from firkin.fcapi.metrics import MetricsConfig

    try:
        vmm.put_metrics(MetricsConfig(metrics_path=path))
    except Fault as error:
        why = str(error).partition(": ")[2]
        debug = f'MetricsInitialization(InitializationFailure("{why.partition(": ")[2]}"))'
        raise Fatal(f"Could not initialize metrics: {why}", debug=debug) from error


def _start_up(began: args.StartTimes) -> dict[str, int]:
    """How long this process took until now, as far as who started it told when that was."""
    found = {}
    if began.start_us is not None:
        found["process_startup_time_us"] = max(0, time.monotonic_ns() // 1000 - began.start_us)
    if began.start_cpu_us is not None:
        since_us = time.process_time_ns() // 1000 - began.start_cpu_us
        found["process_startup_time_cpu_us"] = max(0, since_us + (began.parent_cpu_us or 0))
    return found


def _listen(loop: Loop, arguments: args.Arguments, journal: Journal) -> ApiServer:
    path = arguments.value("api-sock")
    arguments.start_times()  # as upstream, a mistake in them ends only an engine with an API
    try:
        server = ApiServer(loop, path)
    except OSError as error:
        raise _cannot_listen(path, error) from error
    journal.info(f'Listening on API socket ("{path}").')
    return server


def _cannot_listen(path: str, error: OSError) -> Fatal:
    from firkin.engine.faults import os_debug, os_text

    if error.errno == errno.EADDRINUSE:
        text = f"Failed to open the API socket at: {path}. Check that it is not already used."
        return Fatal(f"RunWithApiError error: {text}", debug=f'RunWithApi(FailedToBindSocket("{path}"))')
    if error.errno is None:
        why = "path must be shorter than SUN_LEN"
        shown = f'Error {{ kind: InvalidInput, message: "{why}" }}'
    else:
        why, shown = os_text(error), os_debug(error)
    text = f"Failed to bind and run the HTTP server: IO error: {why}"
    return Fatal(f"RunWithApiError error: {text}", debug=f"RunWithApi(FailedToBindAndRunHttpServer(IOError({shown})))")


def _read(arguments: args.Arguments, name: str, what: str) -> bytes | None:
    """The content of the file that an option names, None without the option. Raises: Panic."""
    if (path := arguments.get(name)) is None:
        return None
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            content = file.read()
        content.decode()
    except OSError as error:
        from firkin.engine.faults import os_debug

        raise Panic(f"Unable to open or read from the {what} file: {os_debug(error)}") from error
    except UnicodeDecodeError as error:
        why = 'Error { kind: InvalidData, message: "stream did not contain valid UTF-8" }'
        raise Panic(f"Unable to open or read from the {what} file: {why}") from error
    return content
