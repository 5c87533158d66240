"""A guest that is one busybox shell on the serial console, for tests that look at devices from inside."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from engine_rig import BOOT_ARGS, Api, Engine, cpio, engine, need_kernel

INIT = b"""#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
exec 0<>/dev/ttyS0 1>&0 2>&0
stty -echo
echo READY
exec sh
"""


def build_initrd(folder: Path) -> Path:
    """An initramfs with busybox. Without busybox on the host the test is skipped."""
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("busybox is not installed")
    folders = [(name, 0o40755, b"") for name in ("bin", "dev", "proc", "sys")]
    files = [("init", 0o100755, INIT), ("bin/busybox", 0o100755, Path(busybox).read_bytes())]
    path = folder / "shell.cpio"
    path.write_bytes(cpio([*folders, *files]))
    return path


class Shell:
    """Runs commands in the guest, one after the other."""

    def __init__(self, vmm: Engine) -> None:
        self.vmm = vmm
        self._count = 0

    def run(self, command: str) -> str:
        """What `command` says; it must succeed."""
        self._count += 1
        begin, end = f"<{self._count}>", f"</{self._count}>"
        self.vmm.output = b""
        self.vmm.type(f"echo '{begin}'; {{ {command}\n}} 2>&1; status=$?; echo; echo $status'{end}'")
        output = self.vmm.expect(end).replace("\r", "")
        said, status = output.partition(f"{begin}\n")[2].partition(end)[0].rsplit("\n", 1)
        assert status == "0", f"{command}: {output}"
        return said.strip()

    def seconds(self, command: str) -> float:
        """How long `command` takes by the guest's clock."""
        said = self.run(f"time sh -c '{command}'")
        found = re.search(r"real\s+(\d+)m ([\d.]+)s", said)
        assert found, said
        return int(found[1]) * 60 + float(found[2])


class Guest:
    """A started guest with its API and shell."""

    def __init__(self, vmm: Engine, api: Api) -> None:
        self.vmm = vmm
        self.api = api
        self.shell = Shell(vmm)


@contextmanager
def guest(
    folder: Path,
    initrd: Path,
    resources: Mapping[str, Mapping[str, Any]],
    *flags: str,
    prefix: tuple[str, ...] = (),
    kernel: str = "",
    boot_args: str = BOOT_ARGS,
) -> Iterator[Guest]:
    """Boot over the API: `resources` are paths and their bodies. `prefix` goes before the engine's command line."""
    socket = folder / "api.sock"
    with engine("--api-sock", socket, *flags, prefix=prefix) as vmm:
        api = Api(socket)
        try:
            source = {"kernel_image_path": kernel or need_kernel(), "initrd_path": str(initrd), "boot_args": boot_args}
            api.put("/boot-source", **source)
            for name, body in resources.items():
                api.put(f"/{name}", **body)
            api.put("/actions", action_type="InstanceStart")
            vmm.expect("READY")
            yield Guest(vmm, api)
        finally:
            api.close()


@contextmanager
def restored(folder: Path, snapshot: Path) -> Iterator[Guest]:
    """A guest out of the files that `save` made, still paused."""
    socket = folder / "restored.sock"
    with engine("--api-sock", socket) as vmm:
        api = Api(socket)
        try:
            api.put("/snapshot/load", snapshot_path=str(snapshot), mem_file_path=f"{snapshot}.memory")
            yield Guest(vmm, api)
        finally:
            api.close()


def save(inside: Guest, snapshot: Path) -> None:
    """Pause the guest and store it."""
    assert inside.api.call("PATCH", "/vm", {"state": "Paused"})[0] == 204
    inside.api.put("/snapshot/create", snapshot_path=str(snapshot), mem_file_path=f"{snapshot}.memory")
