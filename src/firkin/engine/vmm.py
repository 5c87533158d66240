"""The engine's one source of truth: what was configured, what runs, and where it is told."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from firkin.engine.api_calls import ApiCalls
from firkin.engine.args import DEFAULT_PAYLOAD_LIMIT
from firkin.engine.faults import (
    MMDS_NOT_INITIALIZED,
    NO_DEVICE,
    NOT_AFTER_START,
    NOT_BEFORE_START,
    PCI_NOT_ENABLED,
    Area,
    Fault,
    os_text,
)
from firkin.engine.journal import INFO, Journal, UnknownLevel, parse_level
from firkin.engine.latencies import Latencies, Slow
from firkin.engine.live import Live
from firkin.engine.live.monitor import Timer
from firkin.engine.resources import Resources
from firkin.engine.snapshot.memory import GuestMemory
from firkin.engine.snapshot.saved import Traits
from firkin.engine.twin.control import Control
from firkin.engine.twin.record import Record
from firkin.fcapi.balloon import Balloon
from firkin.fcapi.cpu import CpuConfig
from firkin.fcapi.instance import Action, ActionType, InstanceInfo, InstanceState, Vm, VmState
from firkin.fcapi.logger import Logger
from firkin.fcapi.metrics import MetricsConfig
from firkin.fcapi.mmds import MmdsConfig
from firkin.fcapi.snapshot import SnapshotLoad
from firkin.fcapi.version import APP_NAME, VERSION

if TYPE_CHECKING:
    from firkin.engine.metrics import Metrics
    from firkin.engine.mmds.service import Mmds

NOT_FRESH = "Loading a microVM snapshot not allowed after configuring boot-specific resources."


class Running(Protocol):
    """A started guest."""

    @property
    def live(self) -> Live: ...
    @property
    def memory(self) -> GuestMemory: ...
    @property
    def traits(self) -> Traits: ...
    def pause(self) -> None: ...
    def resume(self) -> None: ...
    def press_ctrl_alt_del(self) -> None: ...
    def save_devices(self) -> bytes: ...
    def fall_asleep(self) -> tuple[Control, Record]: ...
    def console_counters(self) -> dict[str, int]: ...


class Hypervisor(Protocol):
    """Who makes a guest of what was configured."""

    def start(self, resources: Resources) -> Running:
        """Raises: Fault; then everything is as before."""

    def load(self, resources: Resources, body: SnapshotLoad) -> Running:
        """A paused guest out of a snapshot. Raises: Fault; then the process is about to end."""


class Vmm:
    """One microVM: before its start a configuration, afterwards a guest."""

    def __init__(self, journal: Journal, hypervisor: Hypervisor, timer: Timer | None = None) -> None:
        self.resources = Resources()
        self.state = InstanceState.NOT_STARTED
        self.journal = journal
        self.mmds_size_limit = DEFAULT_PAYLOAD_LIMIT
        self.latencies = Latencies(journal)
        self.api_calls = ApiCalls()
        self.start_up: dict[str, int] = {}  # how long this process took to serve, for the metrics
        self.metrics: Metrics | None = None
        self._timer = timer
        self.boot_specific = False  # something was configured that a snapshot would bring itself
        self._hypervisor = hypervisor
        self._guest: Running | None = None

    @property
    def started(self) -> bool:
        return self._guest is not None

    @property
    def guest(self) -> Running:
        """The running guest. Raises: Fault, before the start."""
        if self._guest is None:
            raise Fault(NOT_BEFORE_START)
        return self._guest

    @property
    def pluggable(self) -> Resources:
        """The resources, while devices can be added. Raises: Fault, after the start: plugging would need PCI."""
        if self.started:
            raise Fault(PCI_NOT_ENABLED)
        return self.resources

    def balloon(self) -> Balloon:
        """GET /balloon. Raises: Fault, if there is none; before the start in other words than after it."""
        if self.resources.balloon is None:
            raise Fault(NO_DEVICE, Area.VM) if self.started else Fault("No balloon device found.", Area.BALLOON)
        return self.resources.balloon

    def info(self) -> InstanceInfo:
        return InstanceInfo(id=self.journal.instance_id, state=self.state, vmm_version=VERSION, app_name=APP_NAME)

    def start(self) -> None:
        """Start the configured guest.

        Raises:
            Fault: it cannot be started, or runs already.
        """
        if self.started:
            raise Fault(NOT_AFTER_START)
        self._guest = self._hypervisor.start(self.resources)
        self.state = InstanceState.RUNNING
        self._begin_metrics()

    def metadata(self) -> Mmds:
        """The metadata service; the first who asks before the start makes it. Raises: Fault, when nobody did."""
        if self.resources.mmds is None:
            if self.started:
                raise Fault(MMDS_NOT_INITIALIZED, Area.MMDS)
            from firkin.engine.mmds.service import Mmds

            self.resources.mmds = Mmds(self.journal.instance_id, self.mmds_size_limit)
        return self.resources.mmds

    def put_mmds_config(self, body: MmdsConfig) -> None:
        """Raises: Fault, for an address or an interface that cannot be."""
        from firkin.engine.mmds.config import checked

        config = checked(body, [nic.config.iface_id for nic in self.resources.nics])
        self.metadata().config = config

    def load(self, body: SnapshotLoad) -> None:
        """Become the machine of a snapshot, in a process that has configured nothing of its own. Raises: Fault."""
        with self.latencies.measure(Slow.LOAD_SNAPSHOT):
            if self.boot_specific:
                raise Fault(NOT_FRESH, Area.LOAD_SNAPSHOT)
            self._guest = self._hypervisor.load(self.resources, body)
            self.state = InstanceState.PAUSED
            if body.resume_vm:
                self._guest.resume()
                self.state = InstanceState.RUNNING
        self._begin_metrics()

    def act(self, body: Action) -> None:
        """PUT /actions. Raises: Fault."""
        if body.action_type is ActionType.INSTANCE_START:
            self.start()
        elif not self.started:
            raise Fault(NOT_BEFORE_START)
        elif body.action_type is ActionType.SEND_CTRL_ALT_DEL:
            self.guest.press_ctrl_alt_del()
        elif self.metrics is not None:
            self.metrics.flush()

    def put_metrics(self, body: MetricsConfig) -> None:
        """Raises: Fault, for a second time or a file that cannot be opened."""
        if self.metrics is not None:
            what = "Cannot initialize the metrics system due to bad user input: "
            raise Fault(what + "Reinitialization of metrics not allowed.", Area.METRICS)
        from firkin.engine.metrics import Metrics

        self.metrics = Metrics(body.metrics_path, self, self._timer)

    def _begin_metrics(self) -> None:
        if self.metrics is not None:
            self.metrics.begin()

    def set_state(self, body: Vm) -> None:
        """PATCH /vm; asking for the state it is in changes nothing. Raises: EngineError."""
        if body.state is VmState.PAUSED:
            with self.latencies.measure(Slow.PAUSE):
                self.guest.pause()
                self.state = InstanceState.PAUSED
        else:
            with self.latencies.measure(Slow.RESUME):
                self.guest.resume()
                self.state = InstanceState.RUNNING

    def set_cpu_template(self, template: CpuConfig | str) -> None:
        """Take a CPU template, or the path of one, which changes nothing here. Raises: Fault, if it is malformed."""
        from firkin.engine.resources import cpu

        if isinstance(template, str):
            cpu.read(template)
        self.journal.warn("The CPU template has no effect: the guest's processor is QEMU's own.")

    def set_logger(self, body: Logger) -> None:
        """Raises: Fault, for an unknown level or a file that cannot be opened."""
        try:
            level = INFO if body.level is None else parse_level(body.level)
        except UnknownLevel as error:
            raise Fault(f"unknown log level `{error}`", Area.LOGGER) from error
        if body.log_path is not None:
            try:
                self.journal.open(body.log_path)
            except OSError as error:
                raise Fault(f"Failed to open target file: {os_text(error)}", Area.LOGGER) from error
        self.journal.level = level
        # What is left out stays as it was, but for the level.
        self.journal.show_level = self.journal.show_level if body.show_level is None else body.show_level
        self.journal.show_origin = self.journal.show_origin if body.show_log_origin is None else body.show_log_origin
        self.journal.module = self.journal.module if body.module is None else body.module
