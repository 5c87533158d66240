"""What makes a forked machine another one, as the statements of an IDENTITY frame. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from uuid import UUID

from firkin.agent.initrd import GuestFile, Interface, file_words, interface_words, line, name_files


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Everything by which a machine is told from its siblings.

    `macs` are pairs of the MAC that an interface has and the one that it gets; `interfaces` go by the new ones.
    `hangups` are pid files of servers that are to read their files again.
    """

    hostname: str
    seed: bytes
    boot_id: UUID
    macs: tuple[tuple[str, str], ...] = ()
    interfaces: tuple[Interface, ...] = ()
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    files: tuple[GuestFile, ...] = ()
    hangups: tuple[str, ...] = ()


def render_identity(identity: Identity, now_ns: int) -> bytes:
    """The frame's payload. `now_ns` is the wall clock, in nanoseconds since 1970.

    Raises:
        InvalidSpec: a value that the guest could not take.
    """
    return b"".join(line(*words) for words in _statements(identity, now_ns))


def render_clock(now_ns: int, seed: bytes = b"") -> bytes:
    """The same of a machine that stays who it is and only stood still; or went back, and needs a `seed` of its own."""
    return line("firkin", "1") + (line("seed", seed) if seed else b"") + line(*_clock(now_ns))


def _clock(now_ns: int) -> tuple[str, str, str]:
    seconds, nanoseconds = divmod(now_ns, 1_000_000_000)
    return "clock", str(seconds), str(nanoseconds)


def _statements(identity: Identity, now_ns: int) -> Iterator[tuple[str | bytes, ...]]:
    yield "firkin", "1"
    yield "seed", identity.seed
    yield _clock(now_ns)
    yield from (("mac", old, new) for old, new in identity.macs)
    yield from map(interface_words, identity.interfaces)
    yield from map(file_words, (*name_files(identity.hostname, identity.interfaces, identity.dns), *identity.files))
    yield "hostname", identity.hostname
    yield "bootid", str(identity.boot_id)
    yield from (("hangup", path) for path in identity.hangups)
