"""`--config-file`: the same resources as over the API, in upstream's order, then the start."""

from __future__ import annotations

from firkin.engine.controller import Controller
from firkin.engine.faults import Fault
from firkin.errors import EngineError
from firkin.fcapi import codec
from firkin.fcapi.config import VmConfig

# What GET /vm/config may show and this engine cannot do yet. Silence would be worse than a refusal.
_UNSUPPORTED = ("metrics", "cpu_config", "balloon", "mmds_config", "entropy", "pmem", "memory_hotplug")


class ConfigFailed(EngineError):
    """The file does not describe a machine, or it did not start. The text has upstream's prefix."""


def boot(controller: Controller, text: bytes) -> None:
    """Configure everything in the file and start.

    Raises:
        ConfigFailed: at the first resource that is refused.
    """
    try:
        _configure(controller, text)
    except (Fault, codec.Malformed) as error:
        reason = error.in_file if isinstance(error, Fault) else f"Invalid JSON: {error}"
        raise ConfigFailed(f"Configuration for VMM from one single json failed: {reason}") from error
    try:
        controller.start()
    except Fault as error:
        raise ConfigFailed(f"Could not Start MicroVM from one single json: {error.in_file}") from error


def _configure(controller: Controller, text: bytes) -> None:
    config = codec.decode(text, VmConfig)
    for name in _UNSUPPORTED:
        if getattr(config, name):
            raise Fault(f"{name.replace('_', '-')}: not supported by this engine")
    for resource in (
        config.logger,
        config.machine_config,
        config.boot_source,
        *config.drives,
        *config.network_interfaces,
        config.vsock,
    ):
        if resource is not None:
            controller.configure(resource)
