"""One tree of errors; each says what failed, why, and what to do next.

FirkinError
├── UsageError           the request itself cannot be met (exit code 2 on the command line)
│   ├── InvalidSpec      a value out of range
│   ├── NotFound         no machine, image, kernel or network of that name
│   └── NameTaken
├── HostError            this host lacks something
│   ├── ProgramMissing
│   ├── ProgramFailed
│   ├── KernelRefused    a system call failed
│   └── NoSpace
├── EngineError          the VMM refused, died or did not answer
│   └── ApiFault         its own fault_message, word for word
└── GuestError           the guest did not do what it should
    ├── BootTimeout
    ├── ExecTimeout      a program ran longer than it may, and was killed
    ├── ExecFailed       a program ended with something else than 0, where that was asked for
    ├── GuestFileError   a file or folder in the guest
    ├── FunctionFailed   a Python function in the guest ended with an error that has no type here

    ├── BadArchive       what the guest sent as an archive is none, or leads out of where it may go
    └── AgentError
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence


class FirkinError(Exception):
    """Root of every error that firkin raises on purpose.

    `hint` is the next step for a person, a command where there is one; empty when there is none. `exit_code` is what
    the command line ends with.
    """

    exit_code = 125  # as in docker: the tool failed, not the command in the guest

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(FirkinError):
    """The request cannot be met, whatever the host."""

    exit_code = 2


class InvalidSpec(UsageError):
    """A value out of its range."""


class NotFound(UsageError):
    """Nothing of that kind goes by that name."""

    def __init__(self, kind: str, name: str, *, hint: str = "") -> None:
        super().__init__(f"{kind} {name!r}: not found", hint=hint or f"firkin {kind} ls")
        self.kind = kind
        self.name = name


class NameTaken(UsageError):
    """Something of that kind has the name already."""


class HostError(FirkinError):
    """The host lacks something that firkin needs."""


class ProgramMissing(HostError):
    """A program is not installed."""

    def __init__(self, program: str, *, package: str = "") -> None:
        hint = f"sudo apt-get install {package or program}"
        super().__init__(f"{program}: program not found", hint=hint)
        self.program = program


class ProgramFailed(HostError):
    """A program exited non-zero. The message holds a line to paste and the end of what it said."""

    def __init__(self, argv: Sequence[str], returncode: int, output: str) -> None:
        tail = "\n".join(output.strip().splitlines()[-8:])
        super().__init__(f"`{shlex.join(argv)}` exited with {returncode}" + (f":\n{tail}" if tail else ""))
        self.argv = tuple(argv)
        self.returncode = returncode
        self.output = output


class KernelRefused(HostError):
    """A system call failed; `errno` keeps the reason."""

    def __init__(self, what: str, errno: int, *, hint: str = "") -> None:
        super().__init__(f"{what}: {os.strerror(errno)}", hint=hint)
        self.errno = errno


class NoSpace(HostError):
    """The disk is full, or would be."""


class EngineError(FirkinError):
    """The VMM refused, died or did not answer."""


class ApiFault(EngineError):
    """The VMM answered a call with a fault; the message is its own."""

    def __init__(self, call: str, status: int, fault_message: str) -> None:
        super().__init__(f"{call}: {fault_message}")
        self.status = status
        self.fault_message = fault_message


class GuestError(FirkinError):
    """The guest did not do what it should."""


class BootTimeout(GuestError):
    """The guest's agent did not call in time."""


class AgentError(GuestError):
    """The agent broke its protocol, went away, or refused."""


class ExecTimeout(GuestError):
    """A program in the guest ran longer than it may; its process group was killed."""

    exit_code = 124  # as timeout(1) has it


class ExecFailed(GuestError):
    """A program in the guest ended with something else than 0; `returncode` and the end of `stderr` tell more."""

    def __init__(self, argv: Sequence[str], returncode: int, stderr: bytes) -> None:
        tail = "\n".join(stderr.decode(errors="replace").strip().splitlines()[-8:])
        super().__init__(f"`{shlex.join(argv)}` exited with {returncode}" + (f":\n{tail}" if tail else ""))
        self.argv = tuple(argv)
        self.returncode = self.exit_code = returncode
        self.stderr = stderr


class GuestFileError(GuestError):
    """A file or folder in the guest; `errno` and `path` are the guest's."""

    def __init__(self, path: str, errno: int, reason: str = "", *, hint: str = "") -> None:
        super().__init__(f"{path}: {reason or os.strerror(errno)}", hint=hint)
        self.path = path
        self.errno = errno


class FunctionFailed(GuestError):
    """A function that ran in a guest failed in a way that has no type of its own here.

    `kind` is the error's type in the guest, `trace` its traceback there; both empty where there was none.
    """

    def __init__(self, message: str, *, kind: str = "", trace: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.kind = kind
        self.trace = trace


class BadArchive(GuestError):
    """An archive from the guest is broken, or would write where it must not."""

    def __init__(self, why: str) -> None:
        super().__init__(f"the guest sent an archive that is refused: {why}", hint="do you trust this machine?")
        self.why = why
