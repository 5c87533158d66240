"""A hypervisor that starts nothing, for tests of what surrounds it."""

from __future__ import annotations

from engine_monitor import FakeMonitor, FakeTimer

from firkin.engine.accel import Accel
from firkin.engine.faults import Fault
from firkin.engine.live import Live
from firkin.engine.resources import Resources
from firkin.engine.snapshot.memory import GuestMemory, OwnMemory
from firkin.engine.snapshot.saved import Traits
from firkin.engine.twin.control import Control, NoTwin
from firkin.engine.twin.record import Record
from firkin.fcapi.snapshot import SnapshotLoad

PAGE = 4096
MEMORY_SIZE = 16 * PAGE


class FakeGuest:
    def __init__(self, resources: Resources | None = None) -> None:
        self.monitor = FakeMonitor()
        self.timer = FakeTimer()
        self.live = Live(self.timer, self.monitor, resources or Resources())
        self.paused = False
        self.pressed = 0
        self.devices = b"devices"
        self.traits = Traits(
            acpi=False, accelerator=Accel.TCG, tsc_khz=2_000_000, qemu_version="7.2.0", random_address=None
        )
        self.memory: GuestMemory = OwnMemory(MEMORY_SIZE, huge_pages=False, track=False)

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def press_ctrl_alt_del(self) -> None:
        self.pressed += 1

    def console_counters(self) -> dict[str, int]:
        return {"write_count": 7}

    def save_devices(self) -> bytes:
        return self.devices

    def fall_asleep(self) -> tuple[Control, Record]:
        raise NoTwin("there is no QEMU")


class FakeHypervisor:
    """Starts `guest`, unless `fails` says why not."""

    def __init__(self) -> None:
        self.guest = FakeGuest()
        self.fails = ""
        self.loaded: SnapshotLoad | None = None

    def start(self, resources: Resources) -> FakeGuest:
        if self.fails:
            raise Fault(self.fails)
        return self.guest

    def load(self, resources: Resources, body: SnapshotLoad) -> FakeGuest:
        self.loaded = body
        return self.start(resources)
