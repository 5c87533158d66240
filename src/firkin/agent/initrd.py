"""What a guest boots with: firkin-init in a base archive, the kernel's modules, and one small file per machine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path

from firkin.agent.cpio import CpioEntry, write_cpio
from firkin.errors import HostError, InvalidSpec

FIRKIN_INIT = Path(__file__).with_name("firkin-init")
IN_MEMORY = "tmpfs"
MAX_HOSTNAME = 64
_PLAIN = frozenset(range(0x21, 0x7F)) - {ord("%")}
_QUOTED = tuple(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in range(256))


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface, found by its MAC address; an interface with two addresses is given twice."""

    mac: str
    address: IPv4Interface | IPv6Interface
    gateway: IPv4Address | IPv6Address | None = None


@dataclass(frozen=True, slots=True)
class GuestFile:
    """A file for the writable layer; folders above it are made where they are missing."""

    path: str
    data: bytes
    mode: int = 0o644
    uid: int = 0
    gid: int = 0


@dataclass(frozen=True, slots=True)
class GuestConfig:
    """What one machine is to be. `layer` is "tmpfs" (in memory) or a disk with ext4; without `init` firkin-init stays
    and runs `entrypoint` on the console, and the machine ends with it (without one, when it is told to)."""

    root_device: str = "/dev/vda"
    filesystem: str = "squashfs"
    layer: str = IN_MEMORY
    hostname: str = "firkin"
    interfaces: tuple[Interface, ...] = ()
    dns: tuple[IPv4Address | IPv6Address, ...] = ()
    files: tuple[GuestFile, ...] = ()
    init: str | None = None
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    workdir: str | None = None
    user: str | None = None
    seed: bytes = b""


def build_initrd(config: GuestConfig, modules: bytes | None = None, *, program: Path = FIRKIN_INIT) -> bytes:
    """The initramfs of one machine: base, `modules` (an archive of write_cpio with /lib/firkin/modules.load), config.

    Raises:
        HostError: firkin-init was not built.
        InvalidSpec: a value that the guest could not take.
    """
    machine = write_cpio([CpioEntry.file("firkin.conf", render_config(config), 0o600)])
    return base_archive(program) + (modules or b"") + machine


@functools.cache
def base_archive(program: Path = FIRKIN_INIT) -> bytes:
    """What every machine boots with, whatever its image.

    Raises:
        HostError: firkin-init was not built.
    """
    try:
        init = program.read_bytes()
    except FileNotFoundError as error:
        raise HostError(f"{program}: the guest's program was not built", hint="make -C guest") from error
    folders = ("dev", "image", "layer", "newroot")
    console = CpioEntry.char_device("dev/console", 5, 1)
    return write_cpio([*map(CpioEntry.folder, folders), console, CpioEntry.file("init", init, 0o755)])


def render_config(config: GuestConfig) -> bytes:
    """/firkin.conf: one statement a line, in the order in which the guest needs them.

    Raises:
        InvalidSpec: a value that the guest could not take.
    """
    _check(config)
    return b"".join(_line(*words) for words in _statements(config))


def _check(config: GuestConfig) -> None:
    """The bounds of guest/src/config.h."""
    counts = {
        "interfaces": (len(config.interfaces), 8),
        "files": (len(config.files), 125),  # beside /etc/hostname, /etc/hosts and /etc/resolv.conf
        "arguments": (len(config.entrypoint), 256),
        "variables": (len(config.env), 256),
        "bytes of seed": (len(config.seed), 512),
        "bytes of host name": (len(config.hostname.encode()), MAX_HOSTNAME),
        "bytes of files": (sum(len(file.data) for file in config.files), 1024 * 1024),
    }
    for what, (count, most) in counts.items():
        if count > most:
            raise InvalidSpec(f"guest: {count} {what}, where {most} are the most")
    if not config.hostname:
        raise InvalidSpec("guest: a host name has one byte at least")


def _statements(config: GuestConfig) -> Iterator[tuple[str | bytes, ...]]:
    yield "firkin", "1"
    yield "hostname", config.hostname
    yield "root", config.root_device, config.filesystem
    if config.layer != IN_MEMORY:
        yield "layer", config.layer, "ext4"
    for port in config.interfaces:
        yield "interface", port.mac, str(port.address), *([str(port.gateway)] if port.gateway else [])
    for file in (*_identity_files(config), *config.files):
        yield "file", f"{file.mode:o}", str(file.uid), str(file.gid), file.path, file.data
    for key, value in (("init", config.init), ("workdir", config.workdir), ("user", config.user)):
        if value:
            yield key, value
    yield from (("arg", word) for word in config.entrypoint)
    yield from (("env", variable) for variable in config.env)
    if config.seed:
        yield "seed", config.seed


def _identity_files(config: GuestConfig) -> Iterator[GuestFile]:
    yield GuestFile("/etc/hostname", f"{config.hostname}\n".encode())
    own = [f"{port.address.ip} {config.hostname}" for port in config.interfaces] or [f"127.0.1.1 {config.hostname}"]
    yield GuestFile("/etc/hosts", _lines(["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *own]))
    if config.dns:
        yield GuestFile("/etc/resolv.conf", _lines(f"nameserver {server}" for server in config.dns))


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _line(key: str | bytes, *words: str | bytes) -> bytes:
    return b" ".join(_quote(word) for word in (key, *words)) + b"\n"


def _quote(word: str | bytes) -> bytes:
    """Printable ASCII as it is; blank, % and every other byte as %XX."""
    if isinstance(word, str):
        if "\0" in word:
            raise InvalidSpec(f"{word!r}: a NUL byte cannot be passed to the guest")
        word = word.encode(errors="surrogateescape")
    return b"".join(map(_QUOTED.__getitem__, word))
