"""The metadata service as a guest sees it: curl in the guest, both versions, only on the interfaces listed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from engine_rig import BOOT_ARGS, Api, Engine, engine, need_kernel
from net_world import namespace

from firkin.host import netns, tun

pytestmark = [
    pytest.mark.live,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root"),
    pytest.mark.skipif(
        not all(map(shutil.which, ("curl", "busybox", "cpio"))), reason="curl, busybox or cpio is missing"
    ),
]
URL = "http://169.254.169.254"
DATA = {"latest": {"meta-data": {"id": "i-1", "name": "a"}, "numbers": [1, 2.5]}, "big": "x" * 40000}
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
exec </dev/ttyS0 >/dev/ttyS0 2>&1
stty -echo
for n in 0 1; do
  ip link set eth$n up
  ip addr add 172.16.$n.2/24 dev eth$n
done
ip route add 169.254.169.254 dev eth0
echo READY
while read -r line; do eval "$line"; done
"""


@pytest.fixture(scope="module")
def initrd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shell on the serial console, and the host's curl with its libraries."""
    root = tmp_path_factory.mktemp("root")
    for folder in ("bin", "dev", "proc"):
        (root / folder).mkdir()
    curl = str(shutil.which("curl"))
    words = subprocess.run(["ldd", curl], check=True, capture_output=True, text=True).stdout.split()
    for path in {curl, str(shutil.which("busybox")), *(word for word in words if word.startswith("/"))}:
        place = root / ("bin" if Path(path).name in ("curl", "busybox") else Path(path).parent.relative_to("/"))
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, place)
    (root / "init").write_text(INIT)
    (root / "init").chmod(0o755)
    archive = root.with_suffix(".cpio")
    with archive.open("wb") as out:
        names = "\n".join(str(each.relative_to(root)) for each in sorted(root.rglob("*")))
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names.encode(), stdout=out)
    return archive


class Guest:
    """A shell in the guest, and the engine's API."""

    def __init__(self, vmm: Engine, api: Api) -> None:
        self.api = api
        self._vmm = vmm
        self._count = 0

    def run(self, line: str) -> str:
        """What a command prints."""
        self._count += 1
        start, end = f"<{self._count}<", f">{self._count}>"
        said = self._vmm.ask(f"echo '{start}'; {line}; echo '{end}'", end)
        return said.rpartition(start)[2].partition(end)[0].strip().replace("\r\n", "\n")

    def curl(self, *argv: str) -> str:
        return self.run(" ".join(("curl -sS --max-time 20", *(f"'{each}'" for each in argv))))


@contextmanager
def booted(folder: Path, initrd: Path, **mmds: Any) -> Iterator[Guest]:
    """A guest with two interfaces, of which eth0 has the service."""
    source = {"kernel_image_path": need_kernel(), "initrd_path": str(initrd), "boot_args": BOOT_ARGS}
    nics = [{"iface_id": f"net{n}", "host_dev_name": f"tap{n}", "guest_mac": f"06:00:00:00:00:0{n}"} for n in (0, 1)]
    config = {
        "boot-source": source,
        "drives": [],
        "machine-config": {"vcpu_count": 1, "mem_size_mib": 256},
        "network-interfaces": nics,
        "mmds-config": {"network_interfaces": ["net0"], **mmds},
    }
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "data.json").write_text(json.dumps(DATA))
    with namespace() as name:
        for tap in ("tap0", "tap1"):
            netns.run_in(name, partial(tun.create, tap))
            subprocess.run(["ip", "-n", name, "link", "set", tap, "up"], check=True)
        files = ("--config-file", folder / "config.json", "--metadata", folder / "data.json")
        vmm_in = engine("--api-sock", folder / "s", *files, prefix=("ip", "netns", "exec", name))
        with vmm_in as vmm, closing(Api(folder / "s")) as api:
            vmm.expect("READY")
            yield Guest(vmm, api)


def test_version_1_in_both_formats_on_listed_interfaces_only(tmp_path: Path, initrd: Path) -> None:
    with booted(tmp_path, initrd) as guest:
        assert guest.curl(f"{URL}/latest/meta-data") == "id\nname"
        assert guest.curl(f"{URL}/latest/meta-data/id") == "i-1"
        assert json.loads(guest.curl("-H", "Accept: application/json", f"{URL}/latest")) == DATA["latest"]
        assert guest.curl("-o", "/dev/null", "-w", "%{http_code}", f"{URL}/nothing") == "404"
        sums = guest.run(f"curl -sS {URL}/big | md5sum; printf %040000d 0 | tr 0 x | md5sum").split("\n")
        assert len(sums) == 2
        assert sums[0] == sums[1]
        assert guest.api.call("PATCH", "/mmds", {"latest": {"meta-data": {"id": "i-2"}}}) == (204, None)
        assert guest.curl(f"{URL}/latest/meta-data/id") == "i-2"
        guest.run("ip route replace 169.254.169.254 dev eth1")
        assert "curl: (" in guest.run(f"curl -sS --max-time 3 {URL}/latest 2>&1")


def test_version_2_at_an_address_of_its_own(tmp_path: Path, initrd: Path) -> None:
    url = "http://169.254.170.2"
    with booted(tmp_path, initrd, version="V2", ipv4_address="169.254.170.2") as guest:
        guest.run("ip route add 169.254.170.2 dev eth0")
        assert guest.curl(f"{url}/latest").startswith("No MMDS token provided.")
        token = guest.curl("-X", "PUT", "-H", "X-metadata-token-ttl-seconds: 60", f"{url}/latest/api/token")
        assert len(token) == 48
        assert guest.curl("-H", f"X-metadata-token: {token}", f"{url}/latest/meta-data/id") == "i-1"
        assert guest.curl("-H", f"X-metadata-token: {token[:-1]}!", f"{url}/latest") == "MMDS token not valid."
