"""`--config-file`: the same resources as over the API, in upstream's order, then the start."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from firkin.engine.faults import Fault
from firkin.engine.vmm import Vmm
from firkin.errors import EngineError
from firkin.fcapi import codec
from firkin.fcapi.config import VmConfig

T = TypeVar("T")


class ConfigFailed(EngineError):
    """The file does not describe a machine, or it did not start. The text has upstream's prefix."""


def boot(vmm: Vmm, text: bytes) -> None:
    """Configure everything in the file and start.

    Raises:
        ConfigFailed: at the first resource that is refused.
    """
    try:
        _configure(vmm, codec.decode(text, VmConfig))
    except (Fault, codec.Malformed) as error:
        reason = error.in_file if isinstance(error, Fault) else f"Invalid JSON: {error}"
        raise ConfigFailed(f"Configuration for VMM from one single json failed: {reason}") from error
    try:
        vmm.start()
    except Fault as error:
        raise ConfigFailed(f"Could not Start MicroVM from one single json: {error.in_file}") from error


def _configure(vmm: Vmm, config: VmConfig) -> None:
    resources = vmm.resources
    _put(vmm.set_logger, config.logger)
    _put(vmm.put_metrics, config.metrics)
    _put(resources.put_machine, config.machine_config)
    if config.cpu_config is not None:
        vmm.set_cpu_template(config.cpu_config)
    _put(resources.put_boot, config.boot_source)
    _put(resources.drives.put, *config.drives)
    _put(resources.nics.put, *config.network_interfaces)
    _put(resources.put_vsock, config.vsock)
    _put(resources.put_balloon, config.balloon)
    _put(vmm.put_mmds_config, config.mmds_config)
    _put(resources.put_entropy, config.entropy)
    _put(resources.put_pmem, *config.pmem)
    _put(resources.put_memory_hotplug, config.memory_hotplug)


def _put(put: Callable[[T], None], *configs: T | None) -> None:
    """Hand over each that is in the file."""
    for config in configs:
        if config is not None:
            put(config)
