"""What each phase allows, and what each call does. Requests in, responses out; the guest is started through a seam."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import UNSET

from firkin.engine import routing
from firkin.engine.faults import NOT_AFTER_START, NOT_BEFORE_START, Area, Fault, os_text
from firkin.engine.http import Request, Response
from firkin.engine.journal import API, INFO, Journal, UnknownLevel, parse_level
from firkin.engine.resources import Resources
from firkin.errors import EngineError
from firkin.fcapi import codec
from firkin.fcapi.boot import BootSource
from firkin.fcapi.config import VmConfig
from firkin.fcapi.drives import Drive
from firkin.fcapi.instance import (
    Action,
    ActionType,
    FirecrackerVersion,
    InstanceInfo,
    InstanceState,
    Vm,
    VmState,
)
from firkin.fcapi.instance import Fault as FaultBody
from firkin.fcapi.logger import Logger
from firkin.fcapi.machine import MachineConfiguration, MachineConfigurationPatch
from firkin.fcapi.network import NetworkInterface
from firkin.fcapi.routes import Phase
from firkin.fcapi.version import APP_NAME, VERSION
from firkin.fcapi.vsock import Vsock

_STATUS = {200: "200 OK", 204: "204 No Content", 400: "400 Bad Request"}
_DEPRECATED_TEMPLATE = "{} /machine-config: cpu_template field is deprecated."
_DEPRECATED_VSOCK_ID = "PUT /vsock: vsock_id field is deprecated."


class Running(Protocol):
    """A started guest."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Controller:
    """The engine's one source of truth: configuration, state, and the running guest."""

    def __init__(self, journal: Journal, start: Callable[[Resources], Running]) -> None:
        self.resources = Resources()
        self.state = InstanceState.NOT_STARTED
        self._journal = journal
        self._start = start
        self._running: Running | None = None

    def answer(self, request: Request) -> Response:
        """Handle one request; every failure becomes a response."""
        self._log_request(request)
        try:
            response = self._handle(routing.parse(request), request.method)
        except EngineError as error:
            self._journal.error(f"Received Error. Status code: {_STATUS[400]}. Message: {error}", thread=API)
            return Response(400, codec.encode(FaultBody(fault_message=str(error))))
        text = f"The request was executed successfully. Status code: {_STATUS[response.status]}."
        self._journal.info(text, thread=API)
        return response

    def start(self) -> None:
        """Start the configured guest.

        Raises:
            Fault: it cannot be started, or runs already.
        """
        if self._running is not None:
            raise Fault(NOT_AFTER_START)
        self._running = self._start(self.resources)
        self.state = InstanceState.RUNNING

    def configure(self, body: Any) -> None:
        """Apply one resource, whichever way it came.

        Raises:
            Fault: it is impossible, or cannot be opened.
        """
        _CONFIGURE[type(body)](self, body)

    def set_logger(self, body: Logger) -> None:
        """Raises: Fault, for an unknown level or a file that cannot be opened."""
        try:
            level = INFO if body.level is None else parse_level(body.level)
        except UnknownLevel as error:
            raise Fault(f"unknown log level `{error}`", Area.LOGGER) from error
        if body.log_path is not None:
            try:
                self._journal.open(body.log_path)
            except OSError as error:
                raise Fault(f"Failed to open target file: {os_text(error)}", Area.LOGGER) from error
        self._journal.level = level
        self._journal.show_level = bool(body.show_level)
        self._journal.show_origin = bool(body.show_log_origin)
        self._journal.module = body.module

    def full_config(self) -> VmConfig:
        """The machine as GET /vm/config shows it."""
        resources = self.resources
        return VmConfig(
            boot_source=resources.boot.config if resources.boot else BootSource(kernel_image_path=""),
            drives=tuple(drive.config for drive in resources.drives),
            machine_config=resources.machine,
            network_interfaces=tuple(nic.config for nic in resources.nics),
            vsock=resources.vsock,
        )

    def _handle(self, call: routing.Call, method: str) -> Response:
        if call.route.reply is not None:
            return Response(200, codec.encode(self._describe(call.route.reply)))
        started = self.state is not InstanceState.NOT_STARTED
        if started and not call.route.phase & Phase.RUNTIME:
            raise Fault(NOT_AFTER_START)
        if not started and not call.route.phase & Phase.PREBOOT:
            raise Fault(NOT_BEFORE_START)
        self.configure(call.body)
        return Response(204, deprecated=self._warn_of_deprecated(call.body, method))

    def _describe(self, kind: type) -> object:
        if kind is InstanceInfo:
            return InstanceInfo(id=self._journal.instance_id, state=self.state, vmm_version=VERSION, app_name=APP_NAME)
        if kind is FirecrackerVersion:
            return FirecrackerVersion(firecracker_version=VERSION)
        return self.resources.machine if kind is MachineConfiguration else self.full_config()

    def act(self, body: Action) -> None:
        """PUT /actions. Raises: Fault."""
        if body.action_type is ActionType.INSTANCE_START:
            self.start()
        elif self._running is None:
            raise Fault(NOT_BEFORE_START)
        elif body.action_type is ActionType.SEND_CTRL_ALT_DEL:
            # An i8042 would add 0.6 s to every boot, so the guest has no keyboard.
            raise Fault("SendCtrlAltDel is not supported: the guest of this engine has no keyboard.", Area.VM)
        # FlushMetrics has nothing to write: no metrics were configured.

    def set_state(self, body: Vm) -> None:
        """PATCH /vm; asking for the state it is in changes nothing. Raises: EngineError."""
        assert self._running is not None
        if body.state is VmState.PAUSED:
            self._running.pause()
            self.state = InstanceState.PAUSED
        else:
            self._running.resume()
            self.state = InstanceState.RUNNING

    def _warn_of_deprecated(self, body: object, method: str) -> bool:
        text = ""
        if isinstance(body, MachineConfiguration | MachineConfigurationPatch) and body.cpu_template is not UNSET:
            text = _DEPRECATED_TEMPLATE.format(method)
        elif isinstance(body, Vsock) and body.vsock_id is not UNSET:
            text = _DEPRECATED_VSOCK_ID
        if text:
            self._journal.warn(text, thread=API)
        return bool(text)

    def _log_request(self, request: Request) -> None:
        body = f" with body {_quoted(request.body)}" if request.body is not None else ""
        text = f'The API server received a {request.method.title()} request on "{request.path}"{body}.'
        self._journal.info(text, thread=API)


_CONFIGURE: Mapping[type, Callable[[Controller, Any], None]] = {
    Action: Controller.act,
    BootSource: lambda controller, body: controller.resources.put_boot(body),
    Drive: lambda controller, body: controller.resources.put_drive(body),
    Logger: Controller.set_logger,
    MachineConfiguration: lambda controller, body: controller.resources.put_machine(body),
    MachineConfigurationPatch: lambda controller, body: controller.resources.patch_machine(body),
    NetworkInterface: lambda controller, body: controller.resources.put_nic(body),
    Vm: Controller.set_state,
    Vsock: lambda controller, body: controller.resources.put_vsock(body),
}


def _quoted(body: bytes) -> str:
    return '"' + body.decode(errors="replace") + '"'
