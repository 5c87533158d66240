"""Bodies that make sense for each route, and what each mistake is answered with. Differences from upstream are data."""

from __future__ import annotations

from typing import Any, NamedTuple

NOT_BEFORE = "The requested operation is not supported before starting the microVM."
NOT_AFTER = "The requested operation is not supported after starting the microVM."
NO_PCI = "PCI is not enabled"
NO_FILE = "No such file or directory (os error 2)"

BODIES: dict[tuple[str, str], Any] = {
    ("PUT", "/actions"): {"action_type": "InstanceStart"},
    ("PUT", "/boot-source"): {"kernel_image_path": "/dev/null"},
    ("PUT", "/machine-config"): {"vcpu_count": 1, "mem_size_mib": 128},
    ("PATCH", "/machine-config"): {"vcpu_count": 2},
    ("PUT", "/cpu-config"): {},
    ("PUT", "/drives/{id}"): {"drive_id": "a", "is_root_device": False, "path_on_host": "disk"},
    ("PATCH", "/drives/{id}"): {"drive_id": "a"},
    ("PUT", "/pmem/{id}"): {"id": "a", "path_on_host": "disk"},
    ("PATCH", "/pmem/{id}"): {"id": "a"},
    ("PUT", "/network-interfaces/{id}"): {"iface_id": "a", "host_dev_name": "no-such-tap"},
    ("PATCH", "/network-interfaces/{id}"): {"iface_id": "a"},
    ("PUT", "/vsock"): {"guest_cid": 3, "uds_path": "vsock"},
    ("PUT", "/balloon"): {"amount_mib": 1, "deflate_on_oom": True},
    ("PATCH", "/balloon"): {"amount_mib": 1},
    ("PATCH", "/balloon/statistics"): {"stats_polling_interval_s": 1},
    ("PATCH", "/balloon/hinting/start"): {},
    ("PUT", "/entropy"): {},
    ("PUT", "/serial"): {},
    ("PUT", "/hotplug/memory"): {"total_size_mib": 1024},
    ("PATCH", "/hotplug/memory"): {"requested_size_mib": 128},
    ("PUT", "/logger"): {},
    ("PUT", "/metrics"): {"metrics_path": "metrics"},
    ("PUT", "/mmds"): {"a": "b"},
    ("PATCH", "/mmds"): {"a": "c"},
    ("PUT", "/mmds/config"): {"network_interfaces": ["a"]},
    ("PATCH", "/vm"): {"state": "Paused"},
    ("PUT", "/snapshot/create"): {"snapshot_path": "s", "mem_file_path": "m"},
    ("PUT", "/snapshot/load"): {"snapshot_path": "s", "mem_file_path": "m"},
}


class Mistake(NamedTuple):
    """A call that is refused before the start, with upstream's words, and ours where they differ on purpose."""

    method: str
    path: str
    body: Any
    fault: str
    ours: str | None = None

    def __str__(self) -> str:
        return f"{self.method} {self.path} {self.fault[:40]}"


_JSON = "An error occurred when deserializing the json body of a request: "
_VCPUS = (
    "Machine config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even number "
    "if SMT is enabled."
)
_MEMORY = "Machine config error: The memory size (MiB) is either 0, or not a multiple of the configured page size."
_DRIVE = "Drive config error: Unable to create the virtio block device: "
_NET = "Network config error: Could not create the network device: "
_HOTPLUG = "Memory hotplug config error: "
_LOAD = {"snapshot_path": "s", "mem_file_path": "m"}
_MACHINE = {"vcpu_count": 1, "mem_size_mib": 128}

PATHS = (
    Mistake("PUT", "/nowhere", {}, "Invalid request method and/or path: PUT nowhere."),
    Mistake("PATCH", "/boot-source", {}, "Invalid request method and/or path: PATCH boot-source."),
    Mistake("GET", "/drives/a", None, "Invalid request method and/or path: GET drives."),
    Mistake("PUT", "/snapshot/nowhere", {}, "Invalid request method and/or path: PUT /snapshot/nowhere."),
    Mistake("PUT", "/snapshot", {}, "Missing snapshot operation type."),
    Mistake("GET", "/machine-config", {}, "GET request cannot have a body."),
    Mistake("PUT", "/machine-config", None, "Empty PUT request."),
    Mistake("PATCH", "/machine-config", None, "Empty PATCH request."),
    Mistake("PATCH", "/machine-config", {}, "Empty PATCH request."),
    Mistake("PUT", "/mmds/nowhere", {}, "Unrecognized PUT request path `nowhere`."),
    Mistake("GET", "/balloon/nowhere", None, "Unrecognized GET request path `nowhere`."),
    Mistake("PUT", "/drives", {}, "The ID cannot be empty."),
    Mistake("PUT", "/drives/a-b", {}, "API Resource IDs can only contain alphanumeric characters and underscores."),
    Mistake(
        "PUT",
        "/drives/a",
        {"drive_id": "b", "is_root_device": False},
        "The id from the path does not match the id from the body!",
    ),
    Mistake(
        "PUT",
        "/pmem/a",
        {"id": "b", "path_on_host": "x"},
        "The id from the path does not match the id from the body!",
    ),
    Mistake(
        "PUT",
        "/network-interfaces/a",
        {"iface_id": "b", "host_dev_name": "t"},
        "The id from the path [a] does not match the id from the body [b]!",
    ),
)

JSON = (
    Mistake("PUT", "/machine-config", b"{", _JSON + "EOF while parsing an object at line 1 column 1."),
    Mistake("PUT", "/machine-config", b"{}", _JSON + "missing field `vcpu_count` at line 1 column 2."),
    Mistake(
        "PUT", "/machine-config", b'{"vcpu_count": 1}', _JSON + "missing field `mem_size_mib` at line 1 column 17."
    ),
    Mistake("PUT", "/machine-config", b"nonsense", _JSON + "expected ident at line 1 column 2."),
    Mistake(
        "PUT",
        "/vsock",
        b'{"guest_cid": 3, "uds_path": "v", "x": 1}',
        _JSON + "unknown field `x`, expected one of `vsock_id`, `guest_cid`, `uds_path` at line 1 column 37.",
    ),
    Mistake(
        "PUT",
        "/mmds/config",
        b'{"version": "foo"}',
        _JSON + "unknown variant `foo`, expected `V1` or `V2` at line 1 column 17.",
    ),
    Mistake(
        "PUT",
        "/snapshot/load",
        b'{"snapshot_path": "s"}',
        _JSON + "missing field: either `mem_backend` or `mem_file_path` is required.",
    ),
    Mistake(
        "PUT",
        "/snapshot/load",
        {**_LOAD, "mem_backend": {"backend_path": "m", "backend_type": "File"}},
        _JSON + "too many fields: either `mem_backend` or `mem_file_path` exclusively is required.",
    ),
)

VALUES = (
    Mistake("PUT", "/machine-config", {**_MACHINE, "vcpu_count": 0}, _VCPUS),
    Mistake("PUT", "/machine-config", {**_MACHINE, "vcpu_count": 33}, _VCPUS),
    Mistake("PUT", "/machine-config", {**_MACHINE, "vcpu_count": 3, "smt": True}, _VCPUS),
    Mistake("PUT", "/machine-config", {**_MACHINE, "mem_size_mib": 0}, _MEMORY),
    Mistake("PUT", "/machine-config", {**_MACHINE, "mem_size_mib": 3, "huge_pages": "2M"}, _MEMORY),
    Mistake(
        "PUT",
        "/boot-source",
        {"kernel_image_path": "/nowhere"},
        f"Boot source error: The kernel file cannot be opened: {NO_FILE}",
    ),
    Mistake(
        "PUT",
        "/boot-source",
        {"kernel_image_path": "/dev/null", "initrd_path": "/nowhere"},
        "Boot source error: The initrd file cannot be opened due to invalid path or invalid permissions. " + NO_FILE,
    ),
    Mistake(
        "PUT",
        "/drives/a",
        {"drive_id": "a", "is_root_device": True, "path_on_host": "/nowhere"},
        f"{_DRIVE}Virtio backend error: Error manipulating the backing file: {NO_FILE} /nowhere",
    ),
    Mistake("PUT", "/drives/a", {"drive_id": "a", "is_root_device": True}, _DRIVE + "Invalid block config."),
    Mistake(
        "PUT",
        "/network-interfaces/a",
        {"iface_id": "a", "host_dev_name": "t", "mtu": 67},
        _NET + "MTU 67 is out of range [68, 65535]",
    ),
    Mistake(
        "PUT",
        "/network-interfaces/a",
        {"iface_id": "a", "host_dev_name": "t" * 16},
        _NET + "Open tap device failed: Invalid interface name",
    ),
    Mistake("GET", "/balloon", None, "Balloon config error: No balloon device found."),
    Mistake(
        "PUT",
        "/balloon",
        {"amount_mib": 4096, "deflate_on_oom": True},
        "Balloon config error: Amount of pages requested is too large.",
    ),
    Mistake(
        "PUT",
        "/mmds/config",
        {"network_interfaces": []},
        "MMMDS config error: The list of network interface IDs that allow forwarding MMDS requests is empty.",
    ),
    Mistake(
        "PUT",
        "/mmds/config",
        {"network_interfaces": ["a"], "ipv4_address": "10.0.0.1"},
        "MMMDS config error: The MMDS IPv4 address is not link local.",
    ),
    Mistake(
        "PUT",
        "/mmds/config",
        {"network_interfaces": ["a"]},
        "MMMDS config error: The list of network interface IDs provided contains at least one ID that does not "
        "correspond to any existing network interface.",
    ),
    Mistake("PATCH", "/mmds", {}, "MMDS error: The MMDS data store is not initialized."),
    Mistake(
        "PUT",
        "/metrics",
        {"metrics_path": "/nowhere/metrics"},
        f"Metrics error: Cannot initialize the metrics system due to bad user input: {NO_FILE}",
    ),
    Mistake("PUT", "/logger", {"log_path": "/nowhere/log"}, f"Logger error: Failed to open target file: {NO_FILE}"),
    Mistake(
        "PUT",
        "/hotplug/memory",
        {"total_size_mib": 1024, "block_size_mib": 1},
        _HOTPLUG + "Block size must not be lower than 2 MiB",
    ),
    Mistake(
        "PUT",
        "/hotplug/memory",
        {"total_size_mib": 1024, "block_size_mib": 3},
        _HOTPLUG + "Block size must be a power of 2",
    ),
    Mistake(
        "PUT",
        "/hotplug/memory",
        {"total_size_mib": 1024, "slot_size_mib": 64},
        _HOTPLUG + "Slot size must not be lower than 128 MiB",
    ),
    Mistake(
        "PUT",
        "/hotplug/memory",
        {"total_size_mib": 64},
        _HOTPLUG + "Total size must not be lower than slot size (128 MiB)",
    ),
    Mistake(
        "PUT",
        "/actions",
        {"action_type": "InstanceStart"},
        "Start microvm error: Cannot start microvm without kernel configuration.",
    ),
    Mistake("PUT", "/actions", {"action_type": "FlushMetrics"}, NOT_BEFORE),
    Mistake("PUT", "/actions", {"action_type": "SendCtrlAltDel"}, NOT_BEFORE),
)

RUNNING = (
    Mistake("PUT", "/actions", {"action_type": "InstanceStart"}, NOT_AFTER),
    Mistake("PUT", "/drives/a", BODIES["PUT", "/drives/{id}"], NO_PCI),
    Mistake("PUT", "/pmem/a", BODIES["PUT", "/pmem/{id}"], NO_PCI),
    Mistake("PUT", "/network-interfaces/a", BODIES["PUT", "/network-interfaces/{id}"], NO_PCI),
    Mistake("DELETE", "/drives/data", None, NO_PCI),
    Mistake("DELETE", "/pmem/a", None, NO_PCI),
    Mistake("DELETE", "/network-interfaces/a", None, NO_PCI),
    Mistake(
        "PATCH",
        "/drives/data",
        {"drive_id": "data", "path_on_host": "/nowhere"},
        "Drive config error: Unable to patch the block device: Block: Virtio backend error: Error manipulating the "
        f"backing file: {NO_FILE} /nowhere Please verify the request arguments.",
    ),
    Mistake(
        "PATCH",
        "/drives/data",
        {"drive_id": "data"},
        "Drive config error: Unable to patch the block device: Block: Running method expected different backend. "
        "Please verify the request arguments.",
    ),
    Mistake(
        "PATCH",
        "/network-interfaces/none",
        {"iface_id": "none"},
        "Network config error: Unable to update the net device: Failed perform action on device: Device not found",
    ),
    Mistake(
        "PATCH",
        "/balloon/statistics",
        {"stats_polling_interval_s": 0},
        "Balloon update error: Balloon: Statistics cannot be enabled/disabled after activation.",
    ),
    Mistake("GET", "/mmds", None, "MMDS error: The MMDS data store is not initialized."),
    Mistake(
        "PUT",
        "/snapshot/create",
        {"snapshot_path": "s", "mem_file_path": "m"},
        "Create snapshot error: Cannot save the microVM state: Operation not allowed: save/restore unavailable while "
        "running",
    ),
)
