"""What each call of the API does: one row a route. A handler that is called seldom imports what it needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from firkin.engine.routing import Call
from firkin.engine.vmm import Vmm
from firkin.fcapi.instance import FirecrackerVersion
from firkin.fcapi.version import VERSION

Handler = Callable[[Vmm, Call], object]
"""Carries a call out and gives the body of the reply, None for 204. Raises: EngineError."""


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
    ("PUT", "/drives/{id}"): lambda vmm, call: vmm.resources.drives.put(call.body),
    ("PUT", "/network-interfaces/{id}"): lambda vmm, call: vmm.resources.nics.put(call.body),
    ("PUT", "/vsock"): lambda vmm, call: vmm.resources.put_vsock(call.body),
    ("GET", "/mmds"): lambda vmm, _: vmm.metadata().describe(),
    ("PUT", "/mmds"): lambda vmm, call: vmm.metadata().put(call.body),
    ("PATCH", "/mmds"): lambda vmm, call: vmm.metadata().patch(call.body),
    ("PUT", "/mmds/config"): lambda vmm, call: vmm.resources.put_mmds_config(call.body),
    ("PUT", "/snapshot/create"): _create_snapshot,
    ("PUT", "/snapshot/load"): lambda vmm, call: vmm.load(call.body),
    ("PUT", "/logger"): lambda vmm, call: vmm.set_logger(call.body),
}
