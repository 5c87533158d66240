"""From a fork of the zygote to an engine that nothing tells apart from one that was started by itself."""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from firkin.engine.process import close_all_but
from firkin.engine.twin.nest import NEST
from firkin.errors import EngineError
from firkin.host import habitat, libc
from firkin.host.process import show_as

# How an engine is started by itself, and so how the command line of one that we fork must begin.
COMMAND = [sys.executable, "-I", "-m", "firkin.engine"]
GO = b"go"


class Refused(EngineError):
    """No engine comes of this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an engine is to be. The descriptors came with the request, in this order."""

    asker: int  # pid of the process that asked, by the kernel's word
    argv: Sequence[str]
    environ: Mapping[str, str]
    answer: socket.socket
    folder: int
    netns: int
    streams: Sequence[int]


def become(order: Order) -> list[str]:
    """Turn this process into the ordered engine, up to its first line of code; the arguments for its `main`.

    Does not return if anything goes wrong, or if whoever asked takes it back.
    """
    try:
        _settle(order)
        order.answer.send(b'{"pid": %d}' % os.getpid())
    except Exception as error:  # noqa: BLE001 - whatever it is, this process must not run on as a second zygote
        refuse(order.answer, str(error))
        os._exit(1)
    if _recv(order.answer) != GO:
        os._exit(0)
    order.answer.close()
    return list(order.argv[len(COMMAND) :])


def refuse(answer: socket.socket, why: str) -> None:
    """Say why there will be no engine."""
    import msgspec

    try:
        answer.send(msgspec.json.encode({"refused": why}), socket.MSG_DONTWAIT)
    except OSError:
        return  # whoever asked has given up, and knows


def _settle(order: Order) -> None:
    # Before anything that we may do and the asker may not: what we are is what a child of the asker would be.
    if habitat.of(os.getpid()) != habitat.of(order.asker):
        raise Refused("the zygote lives under other conditions")
    _enter(order.netns)
    os.setsid()
    os.fchdir(order.folder)
    for target, source in enumerate(order.streams):
        os.dup2(source, target)
    os.environ.clear()
    os.environ.update(order.environ)
    time.tzset()
    show_as(order.argv)
    close_all_but({order.answer.fileno(), *(twin.control.fileno() for twin in NEST)})


def _enter(netns: int) -> None:
    """Entering takes a privilege; being there already takes none."""
    there, here = os.fstat(netns), os.stat("/proc/self/ns/net")  # noqa: PTH116 - pathlib costs start-up time
    if (there.st_dev, there.st_ino) != (here.st_dev, here.st_ino):
        libc.setns(netns, "the engine's network namespace")


def _recv(answer: socket.socket) -> bytes:
    try:
        return answer.recv(len(GO))
    except OSError:
        return b""
