"""What a guest boots with: firkin-init in a base archive, the kernel's modules, and one small file per machine."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface
from pathlib import Path
from uuid import UUID

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
    machine_id: UUID | None = None


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
    return b"".join(line(*words) for words in _statements(config))


def _check(config: GuestConfig) -> None:
    """The bounds of guest/src/config.h."""
    counts = {
        "interfaces": (len(config.interfaces), 8),
        "files": (len(config.files), 124),  # beside /etc/hostname, /etc/hosts, /etc/resolv.conf and /etc/machine-id
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
    yield from map(interface_words, config.interfaces)
    own = [*name_files(config.hostname, config.interfaces, config.dns), *machine_id_files(config.machine_id)]
    yield from map(file_words, (*own, *config.files))
    for key, value in (("init", config.init), ("workdir", config.workdir), ("user", config.user)):
        if value:
            yield key, value
    yield from (("arg", word) for word in config.entrypoint)
    yield from (("env", variable) for variable in config.env)
    if config.seed:
        yield "seed", config.seed


def interface_words(port: Interface) -> tuple[str, ...]:
    """The statement for an interface."""
    return ("interface", port.mac, str(port.address), *([str(port.gateway)] if port.gateway else []))


def file_words(file: GuestFile) -> tuple[str | bytes, ...]:
    """The statement for a file."""
    return "file", f"{file.mode:o}", str(file.uid), str(file.gid), file.path, file.data


def name_files(
    hostname: str, interfaces: Iterable[Interface], dns: Iterable[IPv4Address | IPv6Address]
) -> Iterator[GuestFile]:
    """The files that say what the machine is called, and whom it asks for other names."""
    yield GuestFile("/etc/hostname", f"{hostname}\n".encode())
    own = [f"{port.address.ip} {hostname}" for port in interfaces] or [f"127.0.1.1 {hostname}"]
    yield GuestFile("/etc/hosts", _lines(["127.0.0.1 localhost", "::1 localhost ip6-localhost ip6-loopback", *own]))
    if servers := [f"nameserver {server}" for server in dns]:
        yield GuestFile("/etc/resolv.conf", _lines(servers))


def machine_id_files(machine_id: UUID | None, *, dbus: bool = False) -> Iterator[GuestFile]:
    """The files that tell this machine from all others, as machine-id(5) and D-Bus have it."""
    paths = ("/etc/machine-id", "/var/lib/dbus/machine-id") if dbus else ("/etc/machine-id",)
    if machine_id is not None:
        yield from (GuestFile(path, f"{machine_id.hex}\n".encode(), mode=0o444) for path in paths)


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def line(key: str | bytes, *words: str | bytes) -> bytes:
    """One statement: words in a form that the guest takes apart again.

    Raises:
        InvalidSpec: a word holds a NUL byte.
    """
    return b" ".join(_quote(word) for word in (key, *words)) + b"\n"


def _quote(word: str | bytes) -> bytes:
    """Printable ASCII as it is; blank, % and every other byte as %XX."""
    if isinstance(word, str):
        if "\0" in word:
            raise InvalidSpec(f"{word!r}: a NUL byte cannot be passed to the guest")
        word = word.encode(errors="surrogateescape")
    return b"".join(map(_QUOTED.__getitem__, word))
