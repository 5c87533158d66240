"""Network interfaces: their taps, opened when the calls come, and their limits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from firkin.engine import tap, throttle
from firkin.engine.faults import NO_DEVICE, Area, Fault, os_text
from firkin.fcapi.limits import RateLimiter
from firkin.fcapi.network import NetworkInterface, NetworkInterfacePatch

if TYPE_CHECKING:
    from firkin.engine.net import NetDevice


@dataclass(frozen=True, slots=True)
class Nic:
    """An interface as it was asked for, and the device behind it, which owns its tap."""

    config: NetworkInterface
    device: NetDevice


class Nics:
    """All interfaces of the machine, in PUT order."""

    def __init__(self) -> None:
        self._nics: list[Nic] = []

    def __iter__(self) -> Iterator[Nic]:
        return iter(self._nics)

    def __len__(self) -> int:
        return len(self._nics)

    def put(self, config: NetworkInterface) -> None:
        """Add an interface, or replace the one with its id.

        Raises:
            Fault: a MAC in use, an MTU out of range, or a tap that cannot be opened.
        """
        from firkin.engine.net import NetDevice

        place = self._find(config.iface_id)
        _check(config, [nic.config for at, nic in enumerate(self) if at != place])
        # The old one first: the same tap cannot be opened twice.
        if place is not None:
            self._nics.pop(place).device.close()
        nic = Nic(_with_limits(config), NetDevice(config, open_tap(config.host_dev_name)))
        self._nics.insert(len(self) if place is None else place, nic)

    def patch(self, patch: NetworkInterfacePatch) -> None:
        """Change the limits of an interface, also of a running machine's. Raises: Fault, for an unknown one."""
        place = self._find(patch.iface_id)
        if place is None:
            raise Fault(f"Unable to update the net device: {NO_DEVICE}", Area.NETWORK)
        nic = self._nics[place]
        nic.device.limit(patch)
        self._nics[place] = Nic(_with_limits(nic.config, patch), nic.device)

    def close(self) -> None:
        for nic in self:
            nic.device.close()
        self._nics.clear()

    def _find(self, iface_id: str) -> int | None:
        return next((at for at, nic in enumerate(self) if nic.config.iface_id == iface_id), None)


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


def _with_limits(config: NetworkInterface, patch: NetworkInterfacePatch | None = None) -> NetworkInterface:
    """As GET /vm/config shows it: without buckets that do not limit, and with those of `patch` in their place."""
    changes = patch or config
    return msgspec.structs.replace(
        config,
        rx_rate_limiter=throttle.patched(config.rx_rate_limiter, changes.rx_rate_limiter or RateLimiter()),
        tx_rate_limiter=throttle.patched(config.tx_rate_limiter, changes.tx_rate_limiter or RateLimiter()),
    )


def _is_mac(text: str) -> bool:
    parts = text.split(":")
    return len(parts) == 6 and all(len(part) == 2 and _is_hex(part) for part in parts)


def _is_hex(text: str) -> bool:
    return all(char in "0123456789abcdefABCDEF" for char in text)
