"""What connects the engine with one QEMU: monitor, console, control and the calls of devices that the engine serves."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from firkin.engine.twin.control import Control
from firkin.engine.twin.record import Numbers

if TYPE_CHECKING:
    from firkin.engine.resources import Resources
    from firkin.engine.vhost import Trap

_CONSOLE_BUFFER = 1 << 20


class Wires:
    """Both ends of everything; QEMU's are closed here once it has them."""

    def __init__(self, resources: Resources) -> None:
        self.monitor, self._their_monitor = socket.socketpair()
        self.console, self._their_console = socket.socketpair()
        # Each character is a message with an overhead of its own: room for a burst, so that the guest need not wait.
        self._their_console.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _CONSOLE_BUFFER)
        self.control, self._their_control = Control.pair()
        self.trap = _trap(resources)

    def numbers(self) -> Numbers:
        """QEMU's ends, by the numbers that they have here, and in a QEMU that inherits them."""
        return Numbers(
            monitor=self._their_monitor.fileno(),
            console=self._their_console.fileno(),
            control=self._their_control.fileno(),
            calls=self.trap.calls_fd if self.trap else -1,
            devices=self.trap.device_fds if self.trap else [],
        )

    def hand_over(self) -> None:
        """QEMU has its ends; when it goes, ours tell."""
        for end in (self._their_monitor, self._their_console, self._their_control):
            end.close()

    def close(self) -> None:
        """Whoever was to have them does not."""
        self.hand_over()
        for end in (self.monitor, self.console, self.control):
            end.close()
        if self.trap:
            self.trap.close()


def _trap(resources: Resources) -> Trap | None:
    """For the devices that the engine serves itself."""
    devices = resources.vhost_devices()
    if not devices:
        return None
    from firkin.engine.vhost import Trap

    if resources.mmds is not None:
        from firkin.engine.mmds.stack import stack_for

        for nic in resources.nics:
            nic.device.stack = stack_for(resources.mmds, nic.config.iface_id)
    return Trap(devices)
