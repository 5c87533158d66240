"""A Firecracker microVM from nothing, with or without KVM. Public names load on first use.

    with firkin.run("debian") as machine:
        print(machine.exec("uname", "-a").text)

`firkin.aio` has the same names for asyncio.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from firkin.agent.fs import GuestFs as GuestFs
    from firkin.agent.fs import Watch as Watch
    from firkin.agent.messages import ExecRefused as ExecRefused
    from firkin.agent.messages import ExitStatus as ExitStatus
    from firkin.agent.messages import KeptProgram as KeptProgram
    from firkin.agent.outputs import Output as Output
    from firkin.agent.process import ExecResult as ExecResult
    from firkin.agent.process import Process as Process
    from firkin.agent.records import FileChange as FileChange
    from firkin.agent.records import FileEvent as FileEvent
    from firkin.agent.records import FileStat as FileStat
    from firkin.agent.stats import GuestProcess as GuestProcess
    from firkin.errors import AgentError as AgentError
    from firkin.errors import BadArchive as BadArchive
    from firkin.errors import BootTimeout as BootTimeout
    from firkin.errors import EngineError as EngineError
    from firkin.errors import ExecFailed as ExecFailed
    from firkin.errors import ExecTimeout as ExecTimeout
    from firkin.errors import FirkinError as FirkinError
    from firkin.errors import FunctionFailed as FunctionFailed
    from firkin.errors import GuestError as GuestError
    from firkin.errors import GuestFileError as GuestFileError
    from firkin.errors import HostError as HostError
    from firkin.errors import InvalidSpec as InvalidSpec
    from firkin.errors import NameTaken as NameTaken
    from firkin.errors import NotFound as NotFound
    from firkin.errors import UsageError as UsageError
    from firkin.functions.function import Function as Function
    from firkin.functions.function import function as function
    from firkin.manager.copy import Copied as Copied
    from firkin.manager.firkin import Firkin as Firkin
    from firkin.manager.logs import LogLine as LogLine
    from firkin.manager.machine import Machine as Machine
    from firkin.manager.opening import get as get
    from firkin.manager.opening import run as run
    from firkin.manager.pool import Pool as Pool
    from firkin.manager.snapshot import Snapshot as Snapshot
    from firkin.manager.stats import Rates as Rates
    from firkin.manager.stats import Stats as Stats
    from firkin.settings import Settings as Settings
    from firkin.spec import MachineSpec as MachineSpec
    from firkin.store.images import Image as Image
    from firkin.store.kernels import Kernel as Kernel

__version__ = "0.1.0"

# Where each public name lives; most important first, as in docs/python.md.
_HOME = {
    "run": "firkin.manager.opening",
    "get": "firkin.manager.opening",
    "Machine": "firkin.manager.machine",
    "ExecResult": "firkin.agent.process",
    "Process": "firkin.agent.process",
    "Output": "firkin.agent.outputs",
    "ExitStatus": "firkin.agent.messages",
    "KeptProgram": "firkin.agent.messages",
    "GuestFs": "firkin.agent.fs",
    "FileStat": "firkin.agent.records",
    "FileEvent": "firkin.agent.records",
    "FileChange": "firkin.agent.records",
    "Watch": "firkin.agent.fs",
    "Copied": "firkin.manager.copy",
    "Stats": "firkin.manager.stats",
    "Rates": "firkin.manager.stats",
    "GuestProcess": "firkin.agent.stats",
    "LogLine": "firkin.manager.logs",
    "Snapshot": "firkin.manager.snapshot",
    "Pool": "firkin.manager.pool",
    "function": "firkin.functions.function",
    "Function": "firkin.functions.function",
    "Firkin": "firkin.manager.firkin",
    "MachineSpec": "firkin.spec",
    "Settings": "firkin.settings",
    "Image": "firkin.store.images",
    "Kernel": "firkin.store.kernels",
    "FirkinError": "firkin.errors",
    "UsageError": "firkin.errors",
    "InvalidSpec": "firkin.errors",
    "NotFound": "firkin.errors",
    "NameTaken": "firkin.errors",
    "HostError": "firkin.errors",
    "EngineError": "firkin.errors",
    "GuestError": "firkin.errors",
    "BootTimeout": "firkin.errors",
    "AgentError": "firkin.errors",
    "ExecRefused": "firkin.agent.messages",
    "ExecTimeout": "firkin.errors",
    "ExecFailed": "firkin.errors",
    "GuestFileError": "firkin.errors",
    "BadArchive": "firkin.errors",
    "FunctionFailed": "firkin.errors",
}

__all__ = list(_HOME)


def __getattr__(name: str) -> object:
    if name in ("aio", "errors"):
        return importlib.import_module(f"firkin.{name}")
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return [*globals(), *_HOME]
