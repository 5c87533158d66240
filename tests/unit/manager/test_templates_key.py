"""A template's key: the same for machines that boot alike, another for every input that a boot has."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from firkin.manager import templates
from firkin.spec import MachineSpec
from firkin.store.images import Image, ImageConfig
from firkin.store.kernels import Kernel

KERNEL = Kernel(
    name="build", provider="build", version="6.1", source="s", digest="aa" * 32, modules_digest=None, size_bytes=1
)
IMAGE = Image(name="busybox", tag="latest", digest="bb" * 32, filesystem="squashfs", config=ImageConfig(), size_bytes=1)


def key(spec: MachineSpec, kernel: Kernel = KERNEL, image: Image = IMAGE, engine: str = "firkin-vmm") -> str:
    return templates.key(spec, engine, kernel, image)


def config(**changes: object) -> Image:
    return msgspec.structs.replace(IMAGE, config=msgspec.structs.replace(IMAGE.config, **changes))


def test_identity_and_place_do_not_matter() -> None:
    plain = key(MachineSpec(image="busybox"))
    assert (
        key(MachineSpec(image="busybox:latest", name="web", network="lab", boot_timeout_s=5, kernel="build")) == plain
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"spec": MachineSpec(vcpus=2)},
        {"spec": MachineSpec(memory_mib=128)},
        {"spec": MachineSpec(boot_args="quiet")},
        {"spec": MachineSpec(command=("sleep", "1"))},
        {"spec": MachineSpec(env={"A": "1"})},
        {"kernel": replace(KERNEL, digest="cc" * 32)},
        {"kernel": replace(KERNEL, modules_digest="cc" * 32)},
        {"image": msgspec.structs.replace(IMAGE, digest="cc" * 32)},
        {"image": msgspec.structs.replace(IMAGE, filesystem="ext4")},
        {"image": config(entrypoint=("/bin/cat",))},
        {"image": config(user="nobody")},
        {"image": config(working_dir="/")},
        {"engine": "firecracker"},
    ],
)
def test_every_input_of_a_boot_matters(changed: dict[str, object]) -> None:
    assert key(**{"spec": MachineSpec(), **changed}) != key(MachineSpec())  # type: ignore[arg-type]


def test_another_qemu_is_another_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "qemu-system-x86_64"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    before = key(MachineSpec())
    assert key(MachineSpec()) == before
    program.write_text("#!/bin/sh\nexit 1\n")
    assert key(MachineSpec()) != before


def test_what_is_a_persons_own_is_booted() -> None:
    assert templates.serves(MachineSpec(name="web", memory_mib=512))
    assert not templates.serves(MachineSpec(command=("sleep", "1")))
    assert not templates.serves(MachineSpec(env={"TOKEN": "secret"}))
