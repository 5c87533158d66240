"""What a user asks for, checked before anything happens."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from firkin.errors import InvalidSpec

NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
MIN_MEMORY_MIB = 32
MAX_VCPUS = 32

Environment = Mapping[str, str] | Sequence[str]


class MachineSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One machine to be. Memory is in MiB; `None` means that settings or the network decide.

    Raises:
        InvalidSpec: from `check`, with the value, its range and what to do.
    """

    image: str = "debian"
    name: str | None = None
    vcpus: int = 1
    memory_mib: int = 256
    kernel: str | None = None
    network: str = "default"
    command: Sequence[str] = ()
    env: Environment = ()  # kept as NAME=VALUE words
    boot_args: str = ""  # appended to firkin's own
    boot_timeout_s: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.command, str):
            raise InvalidSpec(f"command: {self.command!r} is one text", hint="give a word each: ('sleep', '1')")
        msgspec.structs.force_setattr(self, "command", tuple(self.command))
        msgspec.structs.force_setattr(self, "env", words(self.env))

    def check(self, *, host_memory_mib: int) -> None:
        """Refuse what cannot work, before anything is touched."""
        if not 1 <= self.vcpus <= MAX_VCPUS:
            raise InvalidSpec(f"vcpus: {self.vcpus} is not within 1 and {MAX_VCPUS}", hint="--vcpus 1")
        if self.memory_mib < MIN_MEMORY_MIB:
            raise InvalidSpec(
                f"memory: {self.memory_mib} MiB is less than the {MIN_MEMORY_MIB} MiB that Linux needs",
                hint="--memory 128",
            )
        if self.memory_mib > host_memory_mib:
            raise InvalidSpec(
                f"memory: {self.memory_mib} MiB is more than this host has ({host_memory_mib} MiB)",
                hint=f"--memory {max(MIN_MEMORY_MIB, host_memory_mib // 4)}",
            )
        if self.name is not None and not NAME.fullmatch(self.name):
            raise InvalidSpec(
                f"name: {self.name!r} is not a host name",
                hint="use lower-case letters, digits and dashes, 63 at most, starting with a letter or digit",
            )


def words(env: Environment) -> tuple[str, ...]:
    """Variables as NAME=VALUE.

    Raises:
        InvalidSpec: one has no name.
    """
    if isinstance(env, Mapping):
        env = [f"{name}={value}" for name, value in env.items()]
    if isinstance(env, str):
        raise InvalidSpec(f"env: {env!r} is one text", hint='env={"NAME": "value"}')
    for word in env:
        if "=" not in word[1:] or "\0" in word:
            raise InvalidSpec(f"env: {word!r} is not NAME=VALUE", hint='env={"NAME": "value"}')
    return tuple(env)
