"""firkin for asyncio: the same names, and what waits is awaited.

    async with await aio.run("busybox") as machine:
        result = await machine.exec("uname", "-a")

Names that are not here are `firkin`'s own: data and errors are the same for both. Public names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import firkin

if TYPE_CHECKING:
    from firkin import AgentError as AgentError
    from firkin import BadArchive as BadArchive
    from firkin import BootTimeout as BootTimeout
    from firkin import Copied as Copied
    from firkin import EngineError as EngineError
    from firkin import ExecFailed as ExecFailed
    from firkin import ExecRefused as ExecRefused
    from firkin import ExecResult as ExecResult
    from firkin import ExecTimeout as ExecTimeout
    from firkin import ExitStatus as ExitStatus
    from firkin import FileChange as FileChange
    from firkin import FileEvent as FileEvent
    from firkin import FileStat as FileStat
    from firkin import FirkinError as FirkinError
    from firkin import FunctionFailed as FunctionFailed
    from firkin import GuestError as GuestError
    from firkin import GuestFileError as GuestFileError
    from firkin import GuestProcess as GuestProcess
    from firkin import HostError as HostError
    from firkin import Image as Image
    from firkin import InvalidSpec as InvalidSpec
    from firkin import KeptProgram as KeptProgram
    from firkin import Kernel as Kernel
    from firkin import LogLine as LogLine
    from firkin import MachineSpec as MachineSpec
    from firkin import NameTaken as NameTaken
    from firkin import NotFound as NotFound
    from firkin import Output as Output
    from firkin import Rates as Rates
    from firkin import Settings as Settings
    from firkin import Stats as Stats
    from firkin import UsageError as UsageError
    from firkin.aio.files import GuestFs as GuestFs
    from firkin.aio.files import Watch as Watch
    from firkin.aio.function import Function as Function
    from firkin.aio.function import function as function
    from firkin.aio.machine import Machine as Machine
    from firkin.aio.opening import Firkin as Firkin
    from firkin.aio.opening import get as get
    from firkin.aio.opening import run as run
    from firkin.aio.pools import Pool as Pool
    from firkin.aio.process import Process as Process
    from firkin.aio.snapshot import Snapshot as Snapshot

_HOME = {
    "GuestFs": "firkin.aio.files",
    "Watch": "firkin.aio.files",
    "run": "firkin.aio.opening",
    "get": "firkin.aio.opening",
    "Machine": "firkin.aio.machine",
    "Process": "firkin.aio.process",
    "Snapshot": "firkin.aio.snapshot",
    "Pool": "firkin.aio.pools",
    "function": "firkin.aio.function",
    "Function": "firkin.aio.function",
    "Firkin": "firkin.aio.opening",
}

__all__ = list(firkin.__all__)


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOME[name]) if name in _HOME else firkin
    value = globals()[name] = getattr(home, name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
