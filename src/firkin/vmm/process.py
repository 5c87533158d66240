"""Start an engine, know it again, end it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from firkin.errors import EngineError
from firkin.host import process
from firkin.host.netns import opened, run_in
from firkin.host.process import ProcessRef
from firkin.host.wait import wait_until
from firkin.paths import NEST
from firkin.vmm import backend
from firkin.vmm.boot import API_SOCKET
from firkin.vmm.console import Console
from firkin.vmm.rotated import last_bytes

if TYPE_CHECKING:
    from firkin.vmm.client import ApiClient
    from firkin.vmm.zygote import Zygote

SOCKET_TIMEOUT_S = 10.0

Streams = tuple[int, int, int]  # what an engine's stdin, stdout and stderr are to be


@dataclass(frozen=True, slots=True, kw_only=True)
class Station:
    """Where an engine runs: its namespace, its working directory, and where its output goes; and what may fork it."""

    netns: str | None
    run: Path
    console: Console
    engine_log: Path
    zygote: Zygote | None = None


def spawn(argv: list[str], station: Station) -> ProcessRef:
    """Start the engine and its console's keeper, each in its own session; they do not end with us.

    The engine is forked from the zygote where there is one. Else it is started by itself, and a zygote for the next.
    """
    station.console.make()
    zygote = station.zygote if backend.has_zygote(argv) else None
    environ = backend.environment(os.environ) | ({} if zygote is None else {NEST: str(zygote.socket)})
    with station.console.engine_ends() as (stdin, stdout), station.engine_log.open("ab") as errors:
        streams = (stdin, stdout, errors.fileno())
        started = None if zygote is None else _forked(zygote, argv, environ, station, streams)
        if started is None:
            started = _started(argv, environ, station, streams)
            if zygote is not None:
                zygote.start(environ)
    station.console.keep(started)
    return started


def _forked(
    zygote: Zygote, argv: list[str], environ: Mapping[str, str], station: Station, streams: Streams
) -> ProcessRef | None:
    folder = os.open(station.run, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with opened(station.netns) as netns:
            return zygote.engine(argv, environ, (folder, netns, *streams))
    finally:
        os.close(folder)


def _started(argv: list[str], environ: Mapping[str, str], station: Station, streams: Streams) -> ProcessRef:
    stdin, stdout, stderr = streams

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            argv, cwd=station.run, env=environ, stdin=stdin, stdout=stdout, stderr=stderr, start_new_session=True
        )

    # A child inherits the namespace of the thread that makes it.
    child = start() if station.netns is None else run_in(station.netns, start)
    process.let_go(child)
    started = ProcessRef.of(child.pid)
    if started is None:
        raise _died(station)
    return started


def open_api(ref: ProcessRef, station: Station) -> ApiClient:
    """Wait until the engine listens, and connect.

    Raises:
        EngineError: it died, with its last words; or it did not listen in time.
    """
    # Imported while the engine starts on another processor; most commands never need it.
    from firkin.vmm.client import ApiClient

    client = ApiClient(station.run / API_SOCKET)
    if not wait_until(lambda: client.is_served() or not ref.alive(), timeout_s=SOCKET_TIMEOUT_S, interval_s=0.001):
        raise EngineError(
            f"the VMM opened no API socket within {SOCKET_TIMEOUT_S:g} s", hint=f"cat {station.engine_log}"
        )
    if not ref.alive():
        raise _died(station)
    return client


def end(machine_id: str) -> None:
    """Kill whatever engine runs under this id, recorded or not, and wait until it is gone."""
    for ref in process.with_argument("--id", machine_id):
        process.kill(ref)
    process.reap()


def _died(station: Station) -> EngineError:
    return EngineError(f"the VMM died at start:\n{tail(station.engine_log)}", hint="firkin doctor")


def tail(path: Path, *, lines: int = 12, size: int = 8192) -> str:
    """The last lines of a log, for an error message."""
    text = last_bytes(path, size).decode(errors="replace")
    return "\n".join(line.rstrip() for line in text.splitlines()[-lines:])
