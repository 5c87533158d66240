from __future__ import annotations

import itertools
import json

from firkin.engine.accel import Accel
from firkin.engine.qemu_argv import Guest, Nic, qemu_argv
from firkin.engine.qemu_disks import Disk
from firkin.fcapi.balloon import Balloon
from firkin.fcapi.entropy import Entropy
from firkin.fcapi.limits import RateLimiter, TokenBucket

GUEST = Guest(name="m", kernel_fd=7, command_line="quiet", acpi=False, memory_fd=6, monitor_fd=8, console_fd=9)


def with_(**changes: object) -> list[str]:
    fields = {name: getattr(GUEST, name) for name in GUEST.__slots__}
    return qemu_argv(Guest(**(fields | changes)))


def values(argv: list[str], option: str) -> list[str]:
    return [value for name, value in itertools.pairwise(argv) if name == option]


def test_a_guest_never_reboots_shows_nothing_and_is_fenced_in() -> None:
    argv = qemu_argv(GUEST)
    assert {"-no-reboot", "-nodefaults", "-no-user-config"} <= set(argv)
    assert values(argv, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,resourcecontrol=deny"]
    assert values(argv, "-accel") == ["tcg"]
    assert values(argv, "-kernel") == ["/proc/self/fd/7"]


def test_the_sandbox_can_be_refused() -> None:
    assert "-sandbox" not in with_(sandbox=False)


def test_acpi_follows_the_kernel() -> None:
    assert "acpi=off" in values(with_(acpi=False), "-machine")[0]
    assert "acpi=on" in values(with_(acpi=True), "-machine")[0]


def test_processors_come_in_pairs_with_smt() -> None:
    assert values(with_(vcpus=4, smt=True), "-smp") == ["cpus=4,sockets=1,cores=2,threads=2"]
    assert values(with_(vcpus=1, smt=True), "-smp") == ["cpus=1,sockets=1,cores=1,threads=1"]


def test_disks_are_handed_over_as_descriptors_in_order() -> None:
    argv = with_(disks=(Disk(fd=20, read_only=True), Disk(fd=21, read_only=False, durable=True)))
    assert values(argv, "-add-fd") == ["fd=20,set=1", "fd=21,set=2"]
    nodes = {node["node-name"]: node for node in map(json.loads, values(argv, "-blockdev"))}
    assert nodes["drive0-0"]["file"]["filename"] == "/dev/fdset/1"
    assert (nodes["drive0-0"]["read-only"], nodes["drive0-0"]["cache"]["no-flush"]) == (True, True)
    assert (nodes["drive1-0"]["read-only"], nodes["drive1-0"]["cache"]["no-flush"]) == (False, False)
    assert nodes["drive1"]["file"] == "drive1-0"
    devices = values(argv, "-device")[1:]
    assert devices == ["virtio-blk-device,drive=drive0,id=disk0", "virtio-blk-device,drive=drive1,id=disk1"]


def test_an_incomplete_last_sector_is_left_out() -> None:
    argv = with_(disks=(Disk(fd=20, size=1024), Disk(fd=21, size=1025)))
    sizes = [json.loads(node).get("size") for node in values(argv, "-blockdev")]
    assert sizes == [None, None, 1024, None]


def test_a_limited_disk_goes_through_a_throttle() -> None:
    limiter = RateLimiter(ops=TokenBucket(size=1000, refill_time=10_000))
    argv = with_(disks=(Disk(fd=20, read_only=True, limiter=limiter),))
    group = json.loads(values(argv, "-object")[1])
    assert (group["qom-type"], group["id"]) == ("throttle-group", "limit0")
    assert group["limits"] == {"bps-total": 0, "bps-total-max": 0, "iops-total": 100, "iops-total-max": 1000}
    assert json.loads(values(argv, "-blockdev")[1])["throttle-group"] == "limit0"
    assert values(argv, "-device")[1:] == ["virtio-blk-device,drive=drive0,id=disk0,request-merging=off"]


def test_a_drive_of_another_process_is_a_connection() -> None:
    argv = with_(disks=(Disk(fd=20, is_vhost_user=True),))
    assert "socket,id=drive0,fd=20" in values(argv, "-chardev")
    assert values(argv, "-device")[1:] == ["vhost-user-blk,chardev=drive0,id=disk0,num-queues=1"]


def test_devices_come_in_upstreams_order() -> None:
    argv = with_(
        entropy=Entropy(rate_limiter=RateLimiter(bandwidth=TokenBucket(size=100, refill_time=10))),
        extra=("-device", "vsock"),
        nics=(Nic(fd=30, vhost_fd=50, mac="06:00:00:00:00:01"),),
        disks=(Disk(fd=20),),
        balloon=Balloon(amount_mib=1, deflate_on_oom=True),
    )
    devices = values(argv, "-device")[1:]
    assert [device.split(",")[0] for device in devices] == [
        "virtio-balloon-device",
        "virtio-blk-device",
        "virtio-net-device",
        "vsock",
        "virtio-rng-device",
    ]
    assert devices[0].endswith("deflate-on-oom=on,free-page-reporting=off")
    assert devices[-1].endswith("max-bytes=100,period=10")


def test_interfaces_use_inherited_taps() -> None:
    argv = with_(nics=(Nic(fd=30, vhost_fd=50, mac="06:00:00:00:00:01", mtu=1400),))
    assert values(argv, "-netdev") == ["tap,id=net0,fd=30,vhost=on,vhostfd=50"]
    assert values(argv, "-device")[1:] == ["virtio-net-device,netdev=net0,mac=06:00:00:00:00:01,host_mtu=1400"]


def test_extra_devices_come_after_the_others() -> None:
    argv = with_(nics=(Nic(fd=30, vhost_fd=50, mac="06:00:00:00:00:01"),), extra=("-device", "vhost-vsock-device"))
    assert values(argv, "-device")[-1] == "vhost-vsock-device"


def test_memory_is_a_descriptor_of_the_engine() -> None:
    memory = json.loads(values(with_(memory_mib=64, memory_shared=False), "-object")[0])
    assert memory["mem-path"] == "/proc/self/fd/6"
    assert (memory["size"], memory["share"]) == (64 << 20, False)


def test_without_a_kernel_it_waits_for_a_state() -> None:
    argv = with_(kernel_fd=None)
    assert values(argv, "-incoming") == ["defer"]
    assert "-S" in argv
    assert "-kernel" not in argv


def test_every_guest_has_a_keyboard_controller_which_takes_no_virtio_slot() -> None:
    assert values(qemu_argv(GUEST), "-device") == ["i8042"]


def test_kvm_shows_the_hosts_processor() -> None:
    argv = with_(accel=Accel.KVM)
    assert (values(argv, "-accel"), values(argv, "-cpu")) == (["kvm"], ["host"])


def test_tcg_hides_string_moves_that_it_does_byte_by_byte() -> None:
    assert values(qemu_argv(GUEST), "-cpu") == ["max,-erms,-fsrm"]


def test_guest_errors_are_logged_for_the_boot_timer_only() -> None:
    assert "-d" not in qemu_argv(GUEST)
    assert values(with_(reports_boot=True), "-d") == ["guest_errors"]
