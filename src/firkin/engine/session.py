"""One guest's life in this process: configured over the API or by file, started once, and its end is ours."""

from __future__ import annotations

from firkin.engine import config_file, exits, launch
from firkin.engine.accel import Choice
from firkin.engine.boot_timer import BootTimer
from firkin.engine.console import Terminal
from firkin.engine.exits import Fatal, Panic
from firkin.engine.faults import Fault
from firkin.engine.journal import Journal
from firkin.engine.loop import Loop
from firkin.engine.machine import Machine
from firkin.engine.process import Ended
from firkin.engine.resources import Resources
from firkin.engine.twin.nest import NEST
from firkin.engine.vmm import Vmm
from firkin.fcapi import codec
from firkin.fcapi.snapshot import SnapshotLoad


class Session:
    """Microvm, terminal and guest. `close` leaves no QEMU and no raw terminal behind, whatever happened."""

    def __init__(
        self, loop: Loop, journal: Journal, *, sandbox: bool, accel: Choice = Choice.AUTO, boot_timer: bool = False
    ) -> None:
        self.vmm = Vmm(journal, self, loop)
        self._loop = loop
        self._journal = journal
        self._sandbox = sandbox
        self._accel = accel
        self._times_boot = boot_timer
        self._terminal = Terminal()
        self._machine: Machine | None = None

    def boot(self, config: bytes, *, with_api: bool) -> None:
        """Configure and start from a config file.

        Raises:
            Fatal: in upstream's words.
        """
        try:
            config_file.boot(self.vmm, config)
        except config_file.ConfigFailed as error:
            kind = "RunWithApiError" if with_api else "RunWithoutApiError"
            text = f"{kind} error: Failed to build MicroVM from Json: {error}"
            raise Fatal(text, debug=f"{kind}(BuildMicroVMFromJson)") from error
        self._journal.info("Successfully started microvm that was configured from one single json")

    def add_metadata(self, text: bytes) -> None:
        """Fill the metadata store from a file's content.

        Raises:
            Panic: it is no JSON.
            Fatal: it is too large.
        """
        from firkin.engine.mmds import document

        try:
            self.vmm.metadata().store.put(document.parse(text))
        except codec.Malformed as error:
            raise Panic(f"MMDS error: metadata provided not valid json: {error.debug}") from error
        except Fault as error:
            raise Fatal(error.in_file, debug="MmdsLimitExceeded(DataStoreLimitExceeded)") from error
        self._journal.info("Successfully added metadata to mmds from file")

    def end_metrics(self, error: BaseException | None) -> None:
        """Write the last line; to be called while the guest can still be asked, with what ends the engine."""
        if self.vmm.metrics is not None:
            self.vmm.metrics.end(panicked=isinstance(error, Exception) and not isinstance(error, Fatal))

    def close(self) -> None:
        """End the guest if it still runs, and give everything back."""
        if self._machine is not None:
            self._machine.kill()
        self.vmm.resources.close()
        self._terminal.restore()

    def start(self, resources: Resources) -> Machine:
        """Start the configured guest (`Hypervisor`). Raises: Fault."""
        NEST.leave()
        self._machine = launch.boot(self._launch(resources))
        self._take_terminal(resources)
        return self._machine

    def load(self, resources: Resources, body: SnapshotLoad) -> Machine:
        """Bring a snapshot back, paused (`Hypervisor`). Raises: Fault."""
        from firkin.engine.snapshot import load

        try:
            self._machine = load.load(self._launch(resources), self.vmm, body)
        except load.LoadFailed:
            self._loop.stop(exits.GENERIC)  # once the answer is sent
            raise
        finally:
            NEST.leave()
        self._take_terminal(resources)
        return self._machine

    def _take_terminal(self, resources: Resources) -> None:
        if resources.serial.is_terminal:
            self._terminal.make_raw()

    def _launch(self, resources: Resources) -> launch.Launch:
        return launch.Launch(
            loop=self._loop,
            journal=self._journal,
            resources=resources,
            name=self._journal.instance_id,
            sandbox=self._sandbox,
            on_exit=self._on_exit,
            accel=self._accel,
            boot_timer=BootTimer(self._journal.info) if self._times_boot else None,
        )

    def _on_exit(self, ended: Ended) -> None:
        self._machine = None
        self._terminal.restore()
        if ended.code == 0:
            self._journal.info("Vmm is stopping.")
            self._loop.stop(exits.OK)
        else:
            self._journal.error(ended.describe())
            self._loop.stop(exits.GENERIC)
