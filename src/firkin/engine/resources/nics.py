"""Network interfaces: their taps, opened when the calls come."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from firkin.engine import tap
from firkin.engine.faults import Area, Fault, os_text
from firkin.fcapi.network import NetworkInterface


@dataclass(frozen=True, slots=True)
class OpenNic:
    """An interface and its open tap."""

    config: NetworkInterface
    fd: int


class Nics:
    """All interfaces of the machine to be, in PUT order."""

    def __init__(self) -> None:
        self._nics: list[OpenNic] = []

    def __iter__(self) -> Iterator[OpenNic]:
        return iter(self._nics)

    def __len__(self) -> int:
        return len(self._nics)

    def put(self, config: NetworkInterface) -> None:
        """Add an interface, or replace the one with its id.

        Raises:
            Fault: a MAC in use, an MTU out of range, or a tap that cannot be opened.
        """
        place = next((at for at, nic in enumerate(self) if nic.config.iface_id == config.iface_id), None)
        _check(config, [nic.config for at, nic in enumerate(self) if at != place])
        # The old one first: the same tap cannot be opened twice.
        if place is not None:
            os.close(self._nics.pop(place).fd)
        nic = OpenNic(config, open_tap(config.host_dev_name))
        self._nics.insert(len(self) if place is None else place, nic)

    def close(self) -> None:
        for nic in self:
            os.close(nic.fd)


def open_tap(name: str) -> int:
    """Raises: Fault, in Firecracker's words for each reason."""
    what = "Could not create the network device: Open tap device failed: "
    advice = f" Invalid TUN/TAP Backend provided by {name}. Check our documentation on setting up the network devices."
    try:
        return tap.open_tap(name)
    except tap.BadName as error:
        raise Fault(f"{what}Invalid interface name", Area.NETWORK) from error
    except tap.NoTunDevice as error:
        raise Fault(f"{what}Couldn't open /dev/net/tun: {os_text(error)}", Area.NETWORK) from error
    except OSError as error:
        text = f"{what}Error while creating ifreq structure: {os_text(error)}.{advice}"
        raise Fault(text, Area.NETWORK) from error


def _check(config: NetworkInterface, others: Sequence[NetworkInterface]) -> None:
    if config.guest_mac is not None:
        if not _is_mac(config.guest_mac):
            raise Fault("The provided MAC address is invalid.")
        if any((other.guest_mac or "").lower() == config.guest_mac.lower() for other in others):
            raise Fault(f"The MAC address is already in use: {config.guest_mac}", Area.NETWORK)
    create = "Could not create the network device: "
    if config.mtu is not None and not 68 <= config.mtu <= 65535:
        raise Fault(f"{create}MTU {config.mtu} is out of range [68, 65535]", Area.NETWORK)
    if config.rx_rate_limiter or config.tx_rate_limiter:
        # Silence would be worse: a limit that nobody enforces.
        raise Fault(f"{create}rate limiters are not supported on network interfaces by this engine.", Area.NETWORK)


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and _is_hex(part) for part in parts)


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
