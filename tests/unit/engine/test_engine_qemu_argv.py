from __future__ import annotations

import itertools
import json

from firkin.engine.accel import Accel
from firkin.engine.qemu_argv import Disk, Guest, Nic, qemu_argv, throttle_limits
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
    assert values(argv, "-sandbox") == ["on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
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
    first, second = (json.loads(text) for text in values(argv, "-blockdev"))
    assert first["file"]["filename"] == "/dev/fdset/1"
    assert (first["read-only"], first["cache"]["no-flush"]) == (True, True)
    assert (second["read-only"], second["cache"]["no-flush"]) == (False, False)
    assert values(argv, "-device")[1:] == ["virtio-blk-device,drive=drive0", "virtio-blk-device,drive=drive1"]


def test_a_limited_disk_goes_through_a_throttle() -> None:
    limiter = RateLimiter(bandwidth=TokenBucket(size=1000, refill_time=100))
    argv = with_(disks=(Disk(fd=20, read_only=True, limiter=limiter),))
    group = json.loads(values(argv, "-object")[1])
    block = json.loads(values(argv, "-blockdev")[0])
    assert group == {"qom-type": "throttle-group", "id": "limit0", "limits": {"bps-total": 10000}}
    assert (block["driver"], block["node-name"], block["file"]["driver"]) == ("throttle", "drive0", "raw")


def test_buckets_become_averages_and_bursts() -> None:
    slow = TokenBucket(size=5000, refill_time=10_000)
    assert throttle_limits(RateLimiter(ops=slow)) == {"iops-total": 500, "iops-total-max": 5000}
    assert throttle_limits(RateLimiter(ops=TokenBucket(size=0, refill_time=100))) == {}
    assert throttle_limits(None) == {}


def test_interfaces_use_inherited_taps() -> None:
    argv = with_(nics=(Nic(fd=30, mac="06:00:00:00:00:01", mtu=1400),))
    assert values(argv, "-netdev") == ["tap,id=net0,fd=30,vhost=off"]
    assert values(argv, "-device")[1:] == ["virtio-net-device,netdev=net0,mac=06:00:00:00:00:01,host_mtu=1400"]


def test_extra_devices_come_after_the_others() -> None:
    argv = with_(nics=(Nic(fd=30, mac="06:00:00:00:00:01"),), extra=("-device", "vhost-vsock-device"))
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


def test_guest_errors_are_logged_for_the_boot_timer_only() -> None:
    assert "-d" not in qemu_argv(GUEST)
    assert values(with_(reports_boot=True), "-d") == ["guest_errors"]
