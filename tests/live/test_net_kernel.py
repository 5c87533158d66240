"""The small verbs on the kernel, read back with iproute2 and pyroute2."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import IPv4Address, IPv4Interface
from pathlib import Path
from typing import Any, TypeVar

import pytest
from net_world import connect, namespace, unique

from firkin.errors import KernelRefused, NotFound, ProgramFailed
from firkin.host import netns, nft, sysctl, tun
from firkin.host.netlink import Rtnl
from firkin.host.run import run

pytestmark = pytest.mark.live
T = TypeVar("T")
OWN = Path("/proc/thread-self/ns/net")


@pytest.fixture
def room() -> Iterator[str]:
    with namespace() as name:
        yield name


def with_rtnl(where: str, act: Callable[[Rtnl], T]) -> T:
    def inside() -> T:
        with Rtnl() as rtnl:
            return act(rtnl)

    return netns.run_in(where, inside)


def second_opinion(where: str, device: str) -> dict[str, Any]:
    """What pyroute2 sees of a device: its attributes, and those of its kind."""

    def ask() -> dict[str, Any]:
        import pyroute2

        with pyroute2.IPRoute() as route:
            (found,) = route.link("get", ifname=device)
            info = found.get_attr("IFLA_LINKINFO")
            return {
                "mac": found.get_attr("IFLA_ADDRESS"),
                "mtu": found.get_attr("IFLA_MTU"),
                "alias": found.get_attr("IFLA_IFALIAS"),
                "master": found.get_attr("IFLA_MASTER"),
                "kind": info.get_attr("IFLA_INFO_KIND"),
                "up": found["state"] == "up",
                "index": found["index"],
                "data": dict(info.get_attr("IFLA_INFO_DATA")["attrs"]) if info.get_attr("IFLA_INFO_DATA") else {},
            }

    return netns.run_in(where, ask)


def ip(where: str, *words: str) -> Any:
    return json.loads(run("ip", "-n", where, "-j", "-d", *words).stdout)


def test_a_bridge_forwards_at_once_and_keeps_its_mac(room: str) -> None:
    with_rtnl(room, lambda rtnl: rtnl.add_bridge("br0", "06:00:c0:a8:05:01"))
    with_rtnl(room, lambda rtnl: rtnl.change("br0", up=True, alias="firkin:test", mtu=1400))
    seen = second_opinion(room, "br0")
    assert (seen["kind"], seen["mac"], seen["alias"]) == ("bridge", "06:00:c0:a8:05:01", "firkin:test")
    assert (seen["mtu"], seen["up"]) == (1400, True)
    assert seen["data"]["IFLA_BR_STP_STATE"] == 0
    assert seen["data"]["IFLA_BR_FORWARD_DELAY"] == 0


def test_what_we_read_is_what_pyroute2_reads(room: str) -> None:
    with_rtnl(room, lambda rtnl: rtnl.add_bridge("br0", "06:00:c0:a8:05:01"))
    link, seen = with_rtnl(room, lambda rtnl: rtnl.link("br0")), second_opinion(room, "br0")
    assert link is not None
    assert (link.index, link.kind, link.mac, link.mtu) == (seen["index"], seen["kind"], seen["mac"], seen["mtu"])
    assert link in with_rtnl(room, Rtnl.links)


def test_a_port_is_enslaved_isolated_and_freed(room: str) -> None:
    with_rtnl(room, lambda rtnl: rtnl.add_bridge("br0", "06:00:c0:a8:05:01"))
    with_rtnl(room, lambda rtnl: rtnl.add_veth("v0", "v1"))
    with_rtnl(room, lambda rtnl: rtnl.change("v0", master="br0"))
    with_rtnl(room, lambda rtnl: rtnl.isolate("v0"))
    (port,) = ip(room, "link", "show", "v0")
    assert port["master"] == "br0"
    assert port["linkinfo"]["info_slave_data"]["isolated"] is True
    with_rtnl(room, lambda rtnl: rtnl.change("v0", master=""))
    assert second_opinion(room, "v0")["master"] is None


def test_a_cables_far_end_is_born_elsewhere(room: str) -> None:
    with namespace() as far:
        connect(room, "near0", far, "far0")
        assert with_rtnl(room, lambda rtnl: rtnl.link("far0")) is None
        found = with_rtnl(far, lambda rtnl: rtnl.link("far0"))
        assert found is not None
        assert found.kind == "veth"


def test_a_link_moves_to_another_namespace(room: str) -> None:
    with namespace() as far, open(f"/run/netns/{far}") as there:  # noqa: PTH123 - a descriptor is what is wanted
        with_rtnl(room, lambda rtnl: rtnl.add_veth("v0", "v1"))
        with_rtnl(room, lambda rtnl: rtnl.change("v1", netns_fd=there.fileno()))
        assert with_rtnl(far, lambda rtnl: rtnl.link("v1")) is not None


def test_addresses_and_default_route(room: str) -> None:
    def act(rtnl: Rtnl) -> None:
        assert rtnl.default_route() is None
        rtnl.add_bridge("br0", "06:00:0a:00:00:01")
        rtnl.add_address("br0", IPv4Interface("10.7.0.1/24"))
        rtnl.add_address("br0", IPv4Interface("10.7.0.1/24"))
        rtnl.add_address("br0", IPv4Interface("10.8.0.1/24"))
        rtnl.change("br0", up=True)
        rtnl.add_default_route(IPv4Address("10.8.0.254"))
        found = rtnl.default_route()
        assert found is not None
        assert (found.interface, str(found.gateway), str(found.source)) == ("br0", "10.8.0.254", "10.8.0.1/24")
        assert ("br0", IPv4Interface("10.7.0.1/24")) in rtnl.addresses()

    with_rtnl(room, act)
    (route,) = ip(room, "route", "show", "default")
    assert (route["gateway"], route["dev"]) == ("10.8.0.254", "br0")
    (shown,) = ip(room, "addr", "show", "br0")
    assert [address["local"] for address in shown["addr_info"]] == ["10.7.0.1", "10.8.0.1"]


def test_the_better_metric_is_the_default_route(room: str) -> None:
    for index, metric in (("1", "50"), ("2", "20")):
        run("ip", "-n", room, "link", "add", f"b{index}", "up", "type", "bridge")
        run("ip", "-n", room, "addr", "add", f"10.{index}.0.1/24", "dev", f"b{index}")
        run("ip", "-n", room, "route", "add", "default", "via", f"10.{index}.0.9", "metric", metric)
    found = with_rtnl(room, Rtnl.default_route)
    assert found is not None
    assert found.interface == "b2"


def test_refusals_name_the_link_and_keep_the_reason(room: str) -> None:
    with pytest.raises(KernelRefused, match="cannot delete link 'nothing'") as refusal:
        with_rtnl(room, lambda rtnl: rtnl.delete("nothing"))
    assert refusal.value.errno == errno.ENODEV
    with_rtnl(room, lambda rtnl: rtnl.add_bridge("br0", "06:00:c0:a8:05:01"))
    with pytest.raises(KernelRefused, match="cannot add bridge 'br0'") as refusal:
        with_rtnl(room, lambda rtnl: rtnl.add_bridge("br0", "06:00:c0:a8:05:01"))
    assert refusal.value.errno == errno.EEXIST
    with pytest.raises(KernelRefused, match="link 'nothing'"):
        with_rtnl(room, lambda rtnl: rtnl.change("br0", master="nothing"))


def test_ip_netns_sees_our_namespaces_and_we_see_its() -> None:
    name = f"fktest-{unique()}"
    try:
        netns.create(name)
        netns.create(name)
        assert name in {entry["name"] for entry in json.loads(run("ip", "-j", "netns", "list").stdout)}
        run("ip", "netns", "delete", name)
        assert not netns.exists(name)
        run("ip", "netns", "add", name)
        assert netns.exists(name)
        assert name in netns.names()
    finally:
        netns.delete(name)
        netns.delete(name)
    assert not netns.exists(name)
    with pytest.raises(NotFound, match=name):
        netns.run_in(name, os.getpid)


def test_a_namespace_begun_and_not_finished_is_completed() -> None:
    name = f"fktest-{unique()}"
    leftover = netns.FOLDER / name
    netns.FOLDER.mkdir(exist_ok=True)
    leftover.touch()
    try:
        assert not netns.exists(name)
        netns.create(name)
        assert netns.exists(name)
    finally:
        netns.delete(name)
    assert not leftover.exists()


def test_many_may_make_the_same_namespace_at_once() -> None:
    name = f"fktest-{unique()}"
    failures: list[BaseException] = []

    def make() -> None:
        try:
            netns.create(name)
        except BaseException as error:  # noqa: BLE001 - shown below
            failures.append(error)

    threads = [threading.Thread(target=make) for _ in range(8)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        assert Path("/proc/self/mounts").read_text().count(f"/run/netns/{name} ") == 1
    finally:
        netns.delete(name)


def test_the_caller_stays_where_it_is_and_children_inherit(room: str) -> None:
    own = OWN.readlink()
    inside = netns.run_in(room, OWN.readlink)
    child = netns.run_in(room, lambda: subprocess.Popen(["readlink", "/proc/self/ns/net"], stdout=subprocess.PIPE))
    assert child.communicate()[0].decode().strip() == str(inside)
    assert OWN.readlink() == own != inside


def test_an_error_in_a_namespace_reaches_the_caller(room: str) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        netns.run_in(room, fail)


def test_a_process_can_enter_for_good(room: str) -> None:
    script = "import os, sys; from firkin.host.netns import enter; enter(sys.argv[1]); os.execvp('ip', ['ip', 'link'])"
    with_rtnl(room, lambda rtnl: rtnl.add_bridge("landmark", "06:00:c0:a8:05:01"))
    assert "landmark" in run(sys.executable, "-c", script, room).stdout


def test_a_tap_persists_with_its_owner(room: str) -> None:
    netns.run_in(room, lambda: tun.create("tap0", owner_uid=65534))
    netns.run_in(room, lambda: tun.create("tap0", owner_uid=65534))
    (tap,) = ip(room, "link", "show", "tap0")
    data = tap["linkinfo"]["info_data"]
    assert (data["type"], data["persist"], data["vnet_hdr"], data["user"]) == ("tap", True, True, "nobody")
    netns.run_in(room, lambda: tun.delete("tap0"))
    assert with_rtnl(room, lambda rtnl: rtnl.link("tap0")) is None


def test_a_tap_that_was_not_made_to_last_goes_with_its_descriptor(room: str) -> None:
    def act() -> None:
        with tun.attached("tap0"), Rtnl() as rtnl:
            assert rtnl.link("tap0") is not None

    netns.run_in(room, act)
    assert with_rtnl(room, lambda rtnl: rtnl.link("tap0")) is None


def test_a_busy_tap_says_so(room: str) -> None:
    def act() -> None:
        with tun.attached("tap0"), pytest.raises(KernelRefused, match="'tap0'") as refusal, tun.attached("tap0"):
            pass
        assert refusal.value.hint == "another process has this tap open"

    netns.run_in(room, act)


def test_settings_belong_to_the_namespace(room: str) -> None:
    before = sysctl.read("net/ipv4/ip_forward")
    flipped = "0" if before == "1" else "1"
    netns.run_in(room, lambda: sysctl.write("net/ipv4/ip_forward", flipped))
    assert netns.run_in(room, lambda: sysctl.read("net/ipv4/ip_forward")) == flipped
    assert sysctl.read("net/ipv4/ip_forward") == before
    with pytest.raises(KernelRefused, match="cannot read /proc/sys/net/no/such"):
        sysctl.read("net/no/such")


TABLE = {"family": "inet", "name": "t"}


@pytest.mark.parametrize("door", [nft._run, nft._by_program])
def test_a_transaction_is_whole_or_absent(room: str, door: Callable[[str], str]) -> None:
    good = {"add": {"table": TABLE}}
    bad = {"add": {"chain": {"family": "inet", "table": "missing", "name": "c"}}}
    with pytest.raises(nft.RulesRefused, match="nftables: "):
        netns.run_in(room, lambda: door(json.dumps({"nftables": [good, bad]})))
    assert netns.run_in(room, nft.ruleset) == []
    netns.run_in(room, lambda: door(json.dumps({"nftables": [good]})))
    assert netns.run_in(room, nft.tables) == {("inet", "t")}
    assert "table inet t" in run("ip", "netns", "exec", room, "nft", "list", "ruleset").stdout


def test_rules_stay_in_their_namespace(room: str) -> None:
    with namespace() as other:
        netns.run_in(room, lambda: nft.apply([{"add": {"table": TABLE}}]))
        assert netns.run_in(other, nft.tables) == set()
        with pytest.raises(ProgramFailed):
            run("ip", "netns", "exec", other, "nft", "list", "table", "inet", "t")
