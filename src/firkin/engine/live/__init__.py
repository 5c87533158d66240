"""What can be changed on a running guest: its drives, and the memory it is asked to give back."""

from __future__ import annotations

from firkin.engine.live.balloon import LiveBalloon
from firkin.engine.live.drives import LiveDrives
from firkin.engine.live.monitor import Monitor, Timer
from firkin.engine.resources import Resources


class Live:
    """The devices of one running guest, and what they have counted."""

    def __init__(self, timer: Timer, monitor: Monitor, resources: Resources) -> None:
        self.drives = LiveDrives(timer, monitor, resources.drives)
        self.balloon = LiveBalloon(monitor, resources)

    def begin(self) -> None:
        """Set what is no argument of QEMU's. Raises: EngineError."""
        self.drives.begin()
        self.balloon.begin()
