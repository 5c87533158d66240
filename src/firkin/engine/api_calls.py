"""How often each resource was asked for over the API, under the metrics' names. One addition a request."""

from __future__ import annotations

from firkin.fcapi.routes import Route

_NAMES = {
    "/": "instance_info",
    "/actions": "actions",
    "/boot-source": "boot_source",
    "/cpu-config": "cpu_cfg",
    "/drives/{id}": "drive",
    "/hotplug/memory": "hotplug_memory",
    "/logger": "logger",
    "/machine-config": "machine_cfg",
    "/metrics": "metrics",
    "/mmds": "mmds",
    "/mmds/config": "mmds",
    "/network-interfaces/{id}": "network",
    "/pmem/{id}": "pmem",
    "/serial": "serial",
    "/version": "vmm_version",
    "/vsock": "vsock",
}


class ApiCalls:
    """Counts since the start. The metrics show those of them that upstream has."""

    def __init__(self) -> None:
        self.by_group: dict[str, dict[str, int]] = {}
        self.deprecated = 0

    def add(self, route: Route) -> None:
        self._count(route, "count")

    def add_misunderstood(self, route: Route) -> None:
        """A request whose body or id made no sense. One that was understood and refused is no failure, as upstream."""
        self.add(route)
        self._count(route, "fails")

    def _count(self, route: Route, what: str) -> None:
        if route.method != "DELETE" and (name := _NAMES.get(route.path)):
            group = self.by_group.setdefault(f"{route.method.lower()}_api_requests", {})
            field = f"{name}_{what}"
            group[field] = group.get(field, 0) + 1
