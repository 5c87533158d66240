"""The engine itself: API server and one guest on one loop, wired together and taken apart again."""

from __future__ import annotations

import os
from contextlib import ExitStack

from firkin.engine import args
from firkin.engine.exits import Fatal, Panic
from firkin.engine.journal import API, Journal
from firkin.engine.loop import Loop
from firkin.engine.server import ApiServer

# Accepted so that a command line written for Firecracker works; each is said in the log to have no effect.
_WITHOUT_EFFECT = {
    "enable-pci": "devices stay on virtio-mmio",
    "metrics-path": "no metrics are written",
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
    loop = Loop()
    with ExitStack() as undo:
        server = None if "no-api" in arguments.flags else _listen(loop, arguments.value("api-sock"), journal)
        if server is not None:
            undo.callback(server.close)
        # From here on clients may connect; what follows is slow to import.
        from firkin.engine.controller import Controller
        from firkin.engine.session import Session

        payload_limit = _number(arguments, "http-api-max-payload-size")
        session = Session(
            loop,
            journal,
            sandbox="no-seccomp" not in arguments.flags,
            boot_timer="boot-timer" in arguments.flags,
        )
        undo.callback(session.close)
        limited = arguments.get("mmds-size-limit") is not None
        session.vmm.resources.mmds_size_limit = _number(arguments, "mmds-size-limit") if limited else payload_limit
        if (path := arguments.get("metadata")) is not None:
            session.add_metadata(_read(path, "mmds content"))
        if (path := arguments.get("config-file")) is not None:
            session.boot(_read(path, "configuration"), with_api=server is not None)
        if server is not None:
            server.serve(Controller(session.vmm).answer, payload_limit)
            journal.info("API server started.", thread=API)
        return loop.run()


def _listen(loop: Loop, path: str, journal: Journal) -> ApiServer:
    try:
        server = ApiServer(loop, path)
    except OSError as error:
        text = f"Failed to open the API socket at: {path}. Check that it is not already used."
        raise Fatal(f"RunWithApiError error: {text}", debug=f'RunWithApi(FailedToBindSocket("{path}"))') from error
    journal.info(f'Listening on API socket ("{path}").')
    return server


def _read(path: str, what: str) -> bytes:
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib costs start-up time
            return file.read()
    except OSError as error:
        raise Panic(f"Unable to open or read from the {what} file: {os.strerror(error.errno or 0)}") from error


def _number(arguments: args.Arguments, name: str) -> int:
    text = arguments.value(name)
    if not (text.isascii() and text.isdigit()):
        raise Panic(f"'{name}' parameter expected to be of 'usize' type.")
    return int(text)
