"""How a machine's handle reaches the guest by its network: its place there, and OpenSSH's way in."""

from __future__ import annotations

import socket
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from firkin.errors import UsageError
from firkin.host.netns import is_current, run_in
from firkin.host.wait import wait_until
from firkin.manager import ssh
from firkin.manager.context import Context
from firkin.store.machines import MachineRecord

if TYPE_CHECKING:
    from firkin.net.plan import LinkPlan, NetworkPlan

T = TypeVar("T")


class GuestAccess(ABC):
    """The part of a machine's handle that is about its network."""

    id: str
    _context: Context

    @property
    @abstractmethod
    def record(self) -> MachineRecord:
        """The machine's row as it is now."""

    @abstractmethod
    def reach(self) -> Path:
        """The VMM's socket; a UsageError when the machine does not run, or is paused."""

    @property
    def name(self) -> str:
        """What the machine is called; its host name too."""
        return self.record.name

    @property
    def address(self) -> str:
        """The guest's IPv4 address on its network."""
        return self.record.address or ""

    @property
    def network(self) -> NetworkPlan:
        """Where the machine's bridge and tap are."""
        from firkin.manager import networks  # half of what a command in a guest would load, and does not need

        return networks.plan(self._context, self.record.network or "default")

    @property
    def link(self) -> LinkPlan:
        """The machine's tap, address and MAC."""
        from firkin.net.plan import plan_link

        slot = self._context.leases.slot(self.id)
        if slot is None:
            raise UsageError(f"machine {self.record.name!r} is not running", hint="firkin ls")
        return plan_link(self.network, slot)

    def host_address(self) -> IPv4Address:
        """The host's own address beside the bridge's: what the guest reaches only by routing."""
        from firkin.net import links

        return links.host_address(self.network)

    def await_port(self, port: int, *, timeout_s: float) -> bool:
        """Wait until a TCP port of the guest accepts connections; False when `timeout_s` seconds passed first."""
        address = self.address

        def accepts() -> bool:
            try:
                socket.create_connection((address, port), timeout=1.0).close()
            except OSError:
                return False
            return True

        return self.inside(lambda: wait_until(accepts, timeout_s=timeout_s, interval_s=0.05))

    def inside(self, act: Callable[[], T]) -> T:
        """Call `act` in the namespace of the machine's network, where its address is reachable."""
        netns = self.network.netns
        return act() if netns is None else run_in(netns, act)

    @property
    def has_sshd(self) -> bool:
        """Whether its image has an SSH server that knows our key."""
        return self._known_hosts.exists()

    @property
    def _known_hosts(self) -> Path:
        return self._context.paths.machine_home(self.id) / ssh.KNOWN_HOSTS

    def ssh_argv(
        self, command: Sequence[str] = (), *, options: Sequence[str] = (), direct: bool | None = None
    ) -> list[str]:
        """A command line of OpenSSH for this machine; `options` are further ones of ssh's, and go before ours.

        It goes straight to the machine's address where our own namespace has a route, else through vsock, which works
        from anywhere; `direct` chooses.

        Raises:
            UsageError: the machine does not run, is paused, or its image has no SSH server.
        """
        return ["ssh", *options, *ssh.options(self._ssh_access(direct=direct)), self.name, *command]

    def ssh_config(self) -> str:
        """A Host block of ssh_config(5), for `ssh -F`, scp, rsync, editors and Ansible.

        Raises:
            UsageError: the machine does not run, is paused, or its image has no SSH server.
        """
        return ssh.host_block(self._ssh_access())

    def _ssh_access(self, *, direct: bool | None = None) -> ssh.Access:
        from firkin.manager import keys

        self.reach()
        record, paths = self.record, self._context.paths
        if not self.has_sshd:
            raise UsageError(
                f"machine {record.name!r}: image {record.spec.image!r} has no SSH server",
                hint=f"firkin exec -it {record.name} sh",
            )
        if direct is None:
            netns = self.network.netns
            direct = netns is None or is_current(netns)
        return ssh.Access(
            name=record.name,
            address=record.address if direct else None,
            user_key=keys.user_key(paths),
            known_hosts=self._known_hosts,
            paths=paths,
        )
