"""What each call of the API does: one row a route. A handler that is called seldom imports what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from firkin.engine.faults import NO_DEVICE, PCI_NOT_ENABLED, Area, Fault
from firkin.engine.routing import Call
from firkin.engine.vmm import Vmm
from firkin.fcapi.instance import FirecrackerVersion
from firkin.fcapi.version import VERSION

Handler = Callable[[Vmm, Call], object]
"""Carries a call out and gives the body of the reply, None for 204. Raises: EngineError."""


def _refuse(text: str, area: Area = Area.NONE) -> Handler:
    """The handler of a call that cannot succeed here."""

    def refuse(_vmm: Vmm, _call: Call) -> None:
        raise Fault(text, area)

    return refuse


def _create_snapshot(vmm: Vmm, call: Call) -> None:
    from firkin.engine.snapshot.create import create

    create(vmm, call.body)


CALLS: Mapping[tuple[str, str], Handler] = {
    ("GET", "/"): lambda vmm, _: vmm.info(),
    ("GET", "/version"): lambda _vmm, _: FirecrackerVersion(firecracker_version=VERSION),
    ("GET", "/vm/config"): lambda vmm, _: vmm.resources.describe(),
    ("PATCH", "/vm"): lambda vmm, call: vmm.set_state(call.body),
    ("PUT", "/actions"): lambda vmm, call: vmm.act(call.body),
    ("PUT", "/boot-source"): lambda vmm, call: vmm.resources.put_boot(call.body),
    ("GET", "/machine-config"): lambda vmm, _: vmm.resources.machine,
    ("PUT", "/machine-config"): lambda vmm, call: vmm.resources.put_machine(call.body),
    ("PATCH", "/machine-config"): lambda vmm, call: vmm.resources.patch_machine(call.body),
    ("PUT", "/cpu-config"): lambda vmm, call: vmm.set_cpu_template(call.body),
    ("PUT", "/drives/{id}"): lambda vmm, call: vmm.pluggable.drives.put(call.body),
    ("PATCH", "/drives/{id}"): lambda vmm, call: vmm.guest.live.drives.patch(call.body),
    ("DELETE", "/drives/{id}"): _refuse(PCI_NOT_ENABLED),
    ("PUT", "/pmem/{id}"): lambda vmm, call: vmm.pluggable.put_pmem(call.body),
    ("PATCH", "/pmem/{id}"): _refuse(
        f"Unable to patch the pmem device: {NO_DEVICE} Please verify the request arguments.", Area.PMEM
    ),
    ("DELETE", "/pmem/{id}"): _refuse(PCI_NOT_ENABLED),
    ("PUT", "/network-interfaces/{id}"): lambda vmm, call: vmm.pluggable.nics.put(call.body),
    ("PATCH", "/network-interfaces/{id}"): lambda vmm, call: vmm.resources.nics.patch(call.body),
    ("DELETE", "/network-interfaces/{id}"): _refuse(PCI_NOT_ENABLED),
    ("PUT", "/vsock"): lambda vmm, call: vmm.resources.put_vsock(call.body),
    ("GET", "/balloon"): lambda vmm, _: vmm.balloon(),
    ("PUT", "/balloon"): lambda vmm, call: vmm.resources.put_balloon(call.body),
    ("PATCH", "/balloon"): lambda vmm, call: vmm.guest.live.balloon.resize(call.body),
    ("GET", "/balloon/statistics"): lambda vmm, _: vmm.guest.live.balloon.statistics(),
    ("PATCH", "/balloon/statistics"): lambda vmm, call: vmm.guest.live.balloon.set_polling(call.body),
    ("GET", "/balloon/hinting/status"): lambda vmm, _: vmm.guest.live.balloon.refuse_hinting(),
    ("PATCH", "/balloon/hinting/start"): lambda vmm, _: vmm.guest.live.balloon.refuse_hinting(),
    ("PATCH", "/balloon/hinting/stop"): lambda vmm, _: vmm.guest.live.balloon.refuse_hinting(),
    ("PUT", "/entropy"): lambda vmm, call: vmm.resources.put_entropy(call.body),
    ("PUT", "/serial"): lambda vmm, call: vmm.resources.serial.put(call.body),
    ("PUT", "/hotplug/memory"): lambda vmm, call: vmm.resources.put_memory_hotplug(call.body),
    ("PATCH", "/hotplug/memory"): _refuse(NO_DEVICE, Area.MEMORY_HOTPLUG_UPDATE),
    ("GET", "/hotplug/memory"): _refuse(NO_DEVICE, Area.VM),
    ("PUT", "/metrics"): lambda vmm, call: vmm.put_metrics(call.body),
    ("GET", "/mmds"): lambda vmm, _: vmm.metadata().describe(),
    ("PUT", "/mmds"): lambda vmm, call: vmm.metadata().put(call.body),
    ("PATCH", "/mmds"): lambda vmm, call: vmm.metadata().patch(call.body),
    ("PUT", "/mmds/config"): lambda vmm, call: vmm.put_mmds_config(call.body),
    ("PUT", "/snapshot/create"): _create_snapshot,
    ("PUT", "/snapshot/load"): lambda vmm, call: vmm.load(call.body),
    ("PUT", "/logger"): lambda vmm, call: vmm.set_logger(call.body),
}
