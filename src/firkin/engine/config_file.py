"""`--config-file`: the same resources as over the API, in upstream's order, then the start."""

from __future__ import annotations

from firkin.engine.faults import Fault
from firkin.engine.vmm import Vmm
from firkin.errors import EngineError
from firkin.fcapi import codec
from firkin.fcapi.config import VmConfig


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
    for name in ("metrics", "cpu_config", "balloon", "entropy", "pmem", "memory_hotplug"):
        if getattr(config, name):
            raise Fault(f"{name.replace('_', '-')}: not supported by this engine")
    if config.logger is not None:
        vmm.set_logger(config.logger)
    resources.put_machine(config.machine_config)
    resources.put_boot(config.boot_source)
    for drive in config.drives:
        resources.drives.put(drive)
    for nic in config.network_interfaces:
        resources.nics.put(nic)
    if config.vsock is not None:
        resources.put_vsock(config.vsock)
    if config.mmds_config is not None:
        resources.put_mmds_config(config.mmds_config)
