"""Who a fork is: nothing of the machine that it was forked from, and nothing of its siblings."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface

from firkin.agent.identity import Identity
from firkin.agent.initrd import Interface, render_config
from firkin.manager import guest
from firkin.manager.identity import fork_identity
from firkin.net.plan import LinkPlan
from firkin.spec import MachineSpec
from firkin.store.images import ImageConfig
from firkin.store.machines import Lifetime, MachineRecord, State

OLD, NEW = "06:00:0a:00:00:02", "06:00:0a:00:00:03"
LINK = LinkPlan(
    network="default", netns=None, bridge="b", tap="t", mac=NEW, guest=IPv4Interface("10.0.0.3/24"),
    gateway=IPv4Address("10.0.0.1"),
)  # fmt: skip
FORK = MachineRecord(
    id="1", name="fork", state=State.STARTING, spec=MachineSpec(image="busybox"), lifetime=Lifetime.KEPT, engine="e"
)
KEYS = guest.Identity(authorized_key=b"user", host_key=b"private", host_key_public=b"public")
SYSTEMD = ImageConfig(init="/sbin/init", sshd=True)


def contents(identity: Identity) -> dict[str, bytes]:
    return {file.path: file.data for file in identity.files}


def test_name_mac_and_address_are_those_of_record_and_link() -> None:
    identity = fork_identity(FORK, OLD, LINK, ImageConfig(), None)
    assert identity.hostname == "fork"
    assert identity.macs == ((OLD, NEW),)
    assert identity.interfaces == (Interface(NEW, LINK.guest, LINK.gateway),)
    assert identity.hangups == ()


def test_siblings_share_neither_seed_nor_ids() -> None:
    one, two = (fork_identity(FORK, OLD, LINK, ImageConfig(), None) for _ in range(2))
    assert one.seed != two.seed
    assert one.boot_id != two.boot_id
    assert contents(one)["/etc/machine-id"] != contents(two)["/etc/machine-id"]


def test_a_machine_id_is_what_systemd_and_d_bus_take() -> None:
    files = contents(fork_identity(FORK, OLD, LINK, SYSTEMD, KEYS))
    assert files["/etc/machine-id"] == files["/var/lib/dbus/machine-id"]
    assert len(bytes.fromhex(files["/etc/machine-id"].decode())) == 16


def test_an_ssh_server_gets_its_keys_and_is_told() -> None:
    identity = fork_identity(FORK, OLD, LINK, SYSTEMD, KEYS)
    assert contents(identity)["/etc/ssh/ssh_host_ed25519_key"] == b"private"
    assert contents(identity)["/root/.ssh/authorized_keys"] == b"user"
    assert identity.hangups == ("/run/sshd.pid",)
    assert {file.mode for file in identity.files if file.data == b"private"} == {0o600}


def test_a_machine_that_boots_gets_a_machine_id_unless_its_own_init_makes_one() -> None:
    def boot_files(image: ImageConfig) -> bytes:
        return render_config(guest.guest_config(FORK.spec, "fork", image, "squashfs", LINK, None))

    assert b" /etc/machine-id " in boot_files(ImageConfig())
    assert b" /etc/machine-id " not in boot_files(SYSTEMD)
