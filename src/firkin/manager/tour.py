"""The whole story on the user's own host: check, kernel, image, network, boot, and proof that everything answers.

Each stop says what a person would type for it by hand. Doubles as the acceptance test.
"""

from __future__ import annotations

import re
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from firkin.errors import FirkinError, UsageError
from firkin.host.run import run
from firkin.manager import byhand
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.manager.typist import type_and_wait
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.machines import Lifetime

PING = ("ping", "-c", "3", "-i", "0.2", "-W", "5")
NO_LOSS = re.compile(r"^3 packets transmitted, 3 (?:packets )?received, 0% packet loss", re.MULTILINE)
CONSOLE_TIMEOUT_S = 60.0
SSH_TIMEOUT_S = 60.0


class Stop(msgspec.Struct, frozen=True, kw_only=True):
    """One stop of the tour. `proof` is None where there is nothing to prove, only to do."""

    title: str
    commands: tuple[str, ...]
    output: str
    seconds: float
    proof: bool | None = None


class _Stopwatch:
    """Times one stop and turns what it found into a `Stop`; a failing stop is a failed proof, not the tour's end."""

    def __init__(self, title: str, *commands: str) -> None:
        self.title, self.commands, self.began = title, commands, time.perf_counter()

    def done(self, output: str, *, proof: bool | None = None) -> Stop:
        seconds = round(time.perf_counter() - self.began, 3)
        return Stop(title=self.title, commands=self.commands, output=output.strip(), seconds=seconds, proof=proof)


def tour(firkin: Firkin, *, image: str, kernel: str, keep: bool = False) -> Iterator[Stop]:
    """Yield each stop as it is reached.

    Raises:
        FirkinError: a stop that the later ones need failed; nothing is left behind.
    """
    from firkin.manager.doctor import chosen_engine

    watch = _Stopwatch("Host check", "firkin doctor")
    engine = firkin.engine()
    yield watch.done(f"the host check chooses {chosen_engine(firkin.context.paths)}; this tour uses {engine}")

    watch = _Stopwatch("Kernel", f"firkin kernel pull {kernel}")
    found = firkin.kernel(kernel)
    yield watch.done(
        f"{found.name}: Linux {found.version}, {found.size_bytes / 2**20:.1f} MiB, sha256 {found.digest[:16]}…"
    )

    watch = _Stopwatch("Image", f"firkin image build {image}")
    rootfs = firkin.image(image)
    yield watch.done(
        f"{rootfs.reference}: {rootfs.filesystem}, {rootfs.size_bytes / 2**20:.1f} MiB, sha256 {rootfs.digest[:16]}…"
    )
    with _machine(firkin, rootfs, kernel, keep=keep) as machine:
        yield from _booted(machine)
        yield from _proofs(machine)
        watch = _Stopwatch("Removal", f"firkin rm --force {machine.name}")
    yield watch.done(
        f"kept: firkin ssh {machine.name}" if keep else "namespace, bridge, tap, processes and files are gone"
    )


@contextmanager
def _machine(firkin: Firkin, image: Image, kernel: str, *, keep: bool) -> Iterator[Machine]:
    """A machine on a network of its own, so that two tours at once do not meet; gone with this scope or process."""
    if not image.config.sshd:
        raise UsageError(
            f"image {image.reference!r} has no SSH server, which the tour proves", hint="firkin tour debian"
        )
    name = f"tour-{secrets.token_hex(2)}"
    spec = MachineSpec(image=image.reference, name=name, network=name, kernel=kernel)
    machine = firkin.run(spec, lifetime=Lifetime.KEPT if keep else Lifetime.SESSION)
    try:
        yield machine
    finally:
        if not keep:
            machine.remove(force=True)


def _booted(machine: Machine) -> Iterator[Stop]:
    """What the launch did, told from its timeline."""
    timeline = machine.record.timeline
    network, link = machine.network, machine.link
    made = (timeline["network"] - timeline["folders"]) / 1000
    described = f"{network.bridge} {network.gateway}, {link.tap} for {link.guest}"
    yield Stop(title="Network", commands=byhand.network(network, link), output=described, seconds=round(made, 3))
    config = (machine.run_folder / "vm_config.json").read_text()
    yield Stop(
        title="Configuration",
        commands=(f"cat {machine.run_folder / 'vm_config.json'}",),
        output=config.strip(),
        seconds=round((timeline["boot files"] - timeline["engine spawned"]) / 1000, 3),
    )
    booting = (timeline["agent ready"] - timeline["boot files"]) / 1000
    phases = "\n".join(f"{phase:24} {milliseconds:8.1f} ms" for phase, milliseconds in timeline.items())
    yield Stop(
        title="Boot",
        commands=byhand.boot(network, machine.record.engine, machine.run_folder),
        output=phases,
        seconds=round(booting, 3),
    )


def _proofs(machine: Machine) -> Iterator[Stop]:
    """Everything that has to answer."""
    network, link = machine.network, machine.link
    inside = byhand.prefix(network)
    yield _in_guest(machine, "Guest's addresses", ("ip", "-br", "addr", "show"), lambda text: str(link.guest) in text)
    yield _in_guest(machine, "Guest pings the bridge", (*PING, str(network.gateway.ip)), _no_loss)
    yield _in_guest(machine, "Guest pings the host's own address", (*PING, str(machine.host_address())), _no_loss)
    ping = (*PING, str(link.guest.ip))
    yield _on_host(
        "Host pings the guest", inside, ping, lambda: machine.inside(lambda: run(*ping, check=False).stdout), _no_loss
    )
    yield _ssh(machine, inside)
    yield _console(machine)


def _no_loss(text: str) -> bool:
    return NO_LOSS.search(text) is not None


def _in_guest(machine: Machine, title: str, argv: tuple[str, ...], proves: Callable[[str], bool]) -> Stop:
    command = f"firkin exec {machine.name} -- {shlex.join(argv)}"

    def act() -> str:
        done = machine.exec(*argv, timeout_s=30)
        return (done.stdout or done.stderr).decode(errors="replace")

    return _prove(_Stopwatch(title, command), act, proves)


def _on_host(
    title: str, inside: str, argv: tuple[str, ...], act: Callable[[], str], proves: Callable[[str], bool]
) -> Stop:
    return _prove(_Stopwatch(title, f"{inside}{shlex.join(argv)}"), act, proves)


def _ssh(machine: Machine, inside: str) -> Stop:
    """A login with the generated key; sshd may start a little later than the agent."""
    argv = machine.ssh_argv(("echo $USER@$(hostname): $(uname -sr), up $(cut -d. -f1 /proc/uptime) s",), direct=True)
    machine.await_port(22, timeout_s=SSH_TIMEOUT_S)

    def login() -> str:
        done = machine.inside(lambda: run(*argv, check=False, timeout_s=SSH_TIMEOUT_S))
        return done.stdout or done.stderr

    return _on_host("SSH login", inside, tuple(argv), login, lambda text: text.startswith(f"root@{machine.name}:"))


def _console(machine: Machine) -> Stop:
    """The serial console logs in by itself as root; prove it by typing."""

    def login() -> str:
        type_and_wait(machine, "", r"root@\S+[#$] ?$", timeout_s=CONSOLE_TIMEOUT_S)
        return type_and_wait(machine, "echo $(whoami) on $(tty)\n", r"\S+ on /dev/\S+\s", timeout_s=CONSOLE_TIMEOUT_S)

    command = f"firkin console {machine.name}"
    return _prove(_Stopwatch("Console login on ttyS0", command), login, lambda text: "root on /dev/ttyS0" in text)


def _prove(watch: _Stopwatch, act: Callable[[], str], proves: Callable[[str], bool]) -> Stop:
    try:
        output = act()
    except FirkinError as error:
        return watch.done(f"error: {error}", proof=False)
    return watch.done(output, proof=proves(output))
