"""What the guest is told at boot: identity, addresses, keys. From spec, image and link to a `GuestConfig`. Pure."""

from __future__ import annotations

import os
import uuid
from dataclasses import dataclass

from firkin.agent.initrd import GuestConfig, GuestFile, Interface
from firkin.net.plan import LinkPlan
from firkin.spec import MachineSpec
from firkin.store.images import ImageConfig

SEED_BYTES = 64

# Without ACPI a kernel that is to power off stops its CPUs instead, and the machine would live on. systemd runs this
# last, when the disks have everything; other inits never look at it.
POWER_OFF = GuestFile(
    "/usr/lib/systemd/system-shutdown/firkin",
    b'#!/bin/sh\ncase "$1" in halt | poweroff) exec systemctl --force --force reboot ;; esac\n',
    mode=0o755,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Keys of one machine, as OpenSSH writes them. The private host key never leaves boot files of mode 0600."""

    authorized_key: bytes
    host_key: bytes
    host_key_public: bytes


def files(identity: Identity | None) -> tuple[GuestFile, ...]:
    """What goes into the guest's root beside its image."""
    if identity is None:
        return ()
    return (
        GuestFile("/root/.ssh/authorized_keys", identity.authorized_key, mode=0o600),
        GuestFile("/etc/ssh/ssh_host_ed25519_key", identity.host_key, mode=0o600),
        GuestFile("/etc/ssh/ssh_host_ed25519_key.pub", identity.host_key_public, mode=0o644),
    )


def guest_config(
    spec: MachineSpec, name: str, image: ImageConfig, filesystem: str, link: LinkPlan, identity: Identity | None
) -> GuestConfig:
    """One machine's boot config."""
    return GuestConfig(
        hostname=name,
        root_device="/dev/vda",
        filesystem=filesystem,
        interfaces=(Interface(mac=link.mac, address=link.guest, gateway=link.gateway),),
        files=(*files(identity), *([POWER_OFF] if image.init else [])),
        init=image.init,
        entrypoint=tuple(spec.command) if spec.command and image.init is None else image.entrypoint,
        env=(*image.env, *spec.env),
        workdir=image.working_dir,
        user=image.user,
        seed=os.urandom(SEED_BYTES),
        machine_id=None if image.init else uuid.uuid4(),  # an init of the image's own makes one
    )
