"""A machine's serial console on the host: two FIFOs at the engine, and a keeper that turns one of them into a log.

The engine holds both FIFOs open for reading and writing itself, so neither ever ends: anyone may type by opening the
one, and a keeper that was killed costs lines of the log, never the engine. Whether a keeper lives is the kernel's word:
it holds a lock on the FIFO that it reads.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from firkin.errors import HostError
from firkin.host import process
from firkin.host.process import ProcessRef
from firkin.host.wait import wait_until

INPUT = "console.in"
OUTPUT = "console.out"
LOG = "console.log"
KEEPER = Path(__file__).with_name("firkin-keeper")
DRAIN_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Console:
    """Where one machine's console is: FIFOs in `run`, log in `home`, of which one file has `limit` bytes at most."""

    machine_id: str
    run: Path
    home: Path
    limit: int
    keeper: Path = KEEPER

    @property
    def log(self) -> Path:
        return self.home / LOG

    def make(self) -> None:
        """The FIFOs."""
        for name in (INPUT, OUTPUT):
            os.mkfifo(self.run / name, 0o600)

    @contextmanager
    def engine_ends(self) -> Iterator[tuple[int, int]]:
        """Descriptors that become the engine's stdin and stdout."""
        ends = [os.open(self.run / name, os.O_RDWR | os.O_CLOEXEC) for name in (INPUT, OUTPUT)]
        try:
            yield ends[0], ends[1]
        finally:
            for end in ends:
                os.close(end)

    def keep(self, engine: ProcessRef) -> None:
        """Start a keeper that ends with the engine, unless one lives."""
        output = _take(self.run)
        if output is None:
            return
        try:
            watched = os.pidfd_open(engine.pid)
            try:
                if engine.alive():
                    self._spawn(output, watched)
            finally:
                os.close(watched)
        except ProcessLookupError:
            return  # nobody left to listen to
        finally:
            os.close(output)

    def await_last_words(self, engine: ProcessRef) -> None:
        """If the engine has ended, wait until the log has all that it said."""
        if not engine.alive():
            _await_end(self.run)

    def _spawn(self, output: int, engine: int) -> None:
        import subprocess  # most commands find every keeper at work

        options = {"--machine": self.machine_id, "--engine": str(engine), "--limit": str(self.limit)}
        argv = [str(self.keeper), *(word for option in options.items() for word in option)]
        if not self.keeper.exists():
            raise HostError(f"{self.keeper}: the console's keeper was not built", hint="make -C keeper")
        with (self.home / "engine.log").open("ab") as errors:
            child = subprocess.Popen(
                argv, stdin=output, stdout=subprocess.DEVNULL, stderr=errors, pass_fds=(engine,),
                cwd=self.home, env={}, start_new_session=True,
            )  # fmt: skip
        process.let_go(child)


def _take(run: Path) -> int | None:
    """The keeper's end of the FIFO, locked; None if a keeper holds it, or there is no FIFO."""
    try:
        output = os.open(run / OUTPUT, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(output, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(output)
        return None
    return output


def is_kept(run: Path) -> bool:
    """Whether a keeper lives: after the engine's end it writes what is left."""
    try:
        output = os.open(run / OUTPUT, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(output, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(output)
    return False


def speaks(engine: ProcessRef | None, run: Path) -> bool:
    """Whether more can come into the log: the engine runs, or its last words are being written."""
    return (engine is not None and engine.alive()) or is_kept(run)


def end(machine_id: str, run: Path) -> None:
    """See the keeper of an engine that ended gone; kill one that takes longer than `DRAIN_S` seconds."""
    if not _await_end(run):
        for ref in process.with_argument("--machine", machine_id):
            process.kill(ref)
    process.reap()


def _await_end(run: Path) -> bool:
    return wait_until(lambda: not is_kept(run), timeout_s=DRAIN_S, interval_s=0.001)
