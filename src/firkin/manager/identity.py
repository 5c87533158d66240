"""From a fork's record, link and keys to the identity that its guest takes on. Pure but for the randomness in it."""

from __future__ import annotations

import os
import uuid

from firkin.agent.identity import Identity
from firkin.agent.initrd import Interface, machine_id_files
from firkin.manager import guest
from firkin.net.plan import LinkPlan
from firkin.store.images import ImageConfig
from firkin.store.machines import MachineRecord

SSHD_PID = "/run/sshd.pid"


def fork_identity(
    record: MachineRecord, mac: str, link: LinkPlan, image: ImageConfig, keys: guest.Identity | None
) -> Identity:
    """Who the fork is. `mac` is what its interface has, as the snapshot was taken; `keys` are None without SSH."""
    return Identity(
        hostname=record.name,
        seed=os.urandom(guest.SEED_BYTES),
        boot_id=uuid.uuid4(),
        macs=((mac, link.mac),),
        interfaces=(Interface(mac=link.mac, address=link.guest, gateway=link.gateway),),
        files=(*machine_id_files(uuid.uuid4(), dbus=bool(image.init)), *guest.files(keys)),
        hangups=(SSHD_PID,) if keys else (),
    )
