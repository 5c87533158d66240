"""Templates: the first machine of a kind boots, the next ones are forked from what it left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from firkin.errors import NameTaken
from firkin.host.wait import wait_until
from firkin.manager.firkin import Firkin
from firkin.manager.template_keeping import templates
from firkin.settings import load
from firkin.spec import MachineSpec
from firkin.store.machines import Lifetime
from firkin.store.snapshots import SnapshotRecord

pytestmark = pytest.mark.live

SPEC = MachineSpec(image="busybox", memory_mib=128)


def environ(home: Path) -> dict[str, str]:
    return {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build", "FIRKIN_IMAGE": "busybox"}


@pytest.fixture
def open_warm(home: Path, open_firkin: Callable[[], Firkin]) -> Iterator[Callable[[], Firkin]]:
    """Open the home with templates; `open_firkin` removes its machines."""
    del open_firkin
    opened: list[Firkin] = []

    def open_it(**more: str) -> Firkin:
        opened.append(Firkin(load(environ(home) | more)))
        return opened[-1]

    yield open_it
    for firkin in opened:
        firkin.close()


@pytest.fixture
def warm(open_warm: Callable[[], Firkin]) -> Firkin:
    return open_warm()


def kept(firkin: Firkin) -> list[SnapshotRecord]:
    return templates(firkin.context)


def start(firkin: Firkin, spec: MachineSpec = SPEC) -> str | None:
    """Run a machine, see that it works, remove it; answers the snapshot that it came from."""
    with firkin.run(spec) as machine:
        assert machine.exec("hostname").stdout.decode().strip() == machine.name
        assert machine.exec("ping", "-c", "1", "-W", "5", str(machine.network.gateway.ip)).returncode == 0
        return machine.record.snapshot


def test_the_first_boots_and_the_next_are_forked_from_it(warm: Firkin) -> None:
    assert start(warm) is None
    (template,) = kept(warm)
    assert start(warm) == template.id
    assert start(warm) == template.id
    assert kept(warm)[0].used_at > template.used_at


def test_who_was_booted_and_who_was_forked_share_no_identity(warm: Firkin) -> None:
    words = "hostname; cat /proc/sys/kernel/random/boot_id; cat /sys/class/net/eth0/address; ip -4 -o addr show eth0"
    with warm.run(SPEC) as first, warm.run(SPEC) as second, warm.run(SPEC) as third:
        machines = (first, second, third)
        said = [machine.exec("sh", "-c", words).stdout.decode().splitlines() for machine in machines]
        for values in zip(*said, strict=True):
            assert len(set(values)) == 3
        drawn = {machine.exec("head", "-c", "32", "/dev/urandom").stdout for machine in machines}
        assert len(drawn) == 3
        assert abs(float(third.exec("date", "+%s").stdout) - time.time()) < 2


def test_a_fork_goes_by_what_was_asked_for(warm: Firkin) -> None:
    start(warm)
    spec = MachineSpec(image="busybox", memory_mib=128, name="web", network="lab")
    with warm.run(spec) as machine:
        record = machine.record
        assert (record.name, record.network, record.spec) == ("web", "lab", spec)
        assert record.snapshot == kept(warm)[0].id
        with pytest.raises(NameTaken):
            warm.run(spec)
        assert machine.exec("true").returncode == 0
    assert len(kept(warm)) == 1


def test_another_kind_of_machine_has_another_template(warm: Firkin) -> None:
    assert start(warm) is None
    assert start(warm, MachineSpec(image="busybox", memory_mib=160)) is None
    assert start(warm, MachineSpec(image="busybox", memory_mib=128, boot_args="firkin.other")) is None
    assert len({template.template for template in kept(warm)}) == 3


def test_what_is_a_persons_own_is_neither_kept_nor_forked(warm: Firkin) -> None:
    with warm.run(MachineSpec(image="busybox", memory_mib=128, env={"TOKEN": "secret"})) as machine:
        assert machine.exec("sh", "-c", "echo $TOKEN").stdout == b"secret\n"
    with warm.run(MachineSpec(image="busybox", memory_mib=128, command=("sleep", "100"))) as machine:
        assert machine.record.snapshot is None
    assert kept(warm) == []


def test_cold_neither_uses_nor_leaves_one(open_warm: Callable[..., Firkin]) -> None:
    cold = open_warm(FIRKIN_COLD="1")
    assert start(cold) is None
    assert kept(cold) == []
    start(open_warm())
    assert start(cold) is None


@pytest.mark.parametrize("file", ["memory", "state"])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_a_template_that_cannot_be_loaded_is_dropped_and_the_machine_boots(
    warm: Firkin, file: str, damage: str
) -> None:
    start(warm)
    (template,) = kept(warm)
    path = warm.context.paths.snapshot_home(template.id) / file
    if damage == "gone":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size // 2)
    assert start(warm) is None
    (renewed,) = kept(warm)
    assert renewed.id != template.id
    assert not path.exists()
    assert start(warm) == renewed.id


def test_the_one_used_last_stays_when_room_is_short(open_warm: Callable[..., Firkin]) -> None:
    tight = open_warm(FIRKIN_TEMPLATES_MIB="60")
    small, other = SPEC, MachineSpec(image="busybox", memory_mib=160)
    start(tight, small)
    (first,) = kept(tight)
    start(tight, other)
    (second,) = kept(tight)
    assert second.id != first.id
    assert not tight.context.paths.snapshot_home(first.id).exists()


def test_a_template_that_machines_run_from_stays(open_warm: Callable[..., Firkin]) -> None:
    tight = open_warm(FIRKIN_TEMPLATES_MIB="60")
    start(tight)
    with tight.run(SPEC) as machine:
        start(tight, MachineSpec(image="busybox", memory_mib=160))
        assert machine.record.snapshot in {template.id for template in kept(tight)}
        assert machine.exec("true").returncode == 0


def _run_once(home: str, barrier: object) -> None:
    with Firkin(load(environ(Path(home)))) as firkin:
        barrier.wait()  # type: ignore[attr-defined]
        start(firkin)


def test_two_firkins_at_once_make_one_template(warm: Firkin, home: Path) -> None:
    fresh = multiprocessing.get_context("spawn")
    barrier = fresh.Barrier(2)
    both = [fresh.Process(target=_run_once, args=(str(home), barrier)) for _ in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
    assert [process.exitcode for process in both] == [0, 0]
    assert len(kept(warm)) == 1
    assert list((warm.context.paths.home / "snapshots").iterdir()) == [
        warm.context.paths.snapshot_home(kept(warm)[0].id)
    ]


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.1])
def test_kill_9_while_a_template_is_made_leaves_a_whole_one_or_none(
    open_warm: Callable[[], Firkin], home: Path, delay_s: float
) -> None:
    program = "import sys; from firkin.cli import main; main(sys.argv[1:])"
    child = subprocess.Popen(
        [sys.executable, "-c", program, "run", "--rm", "-m", "128", "busybox", "true"],
        env=os.environ | environ(home), stdin=subprocess.DEVNULL,
    )  # fmt: skip
    snapshots = home / "snapshots"
    while not (snapshots.is_dir() and list(snapshots.iterdir())) and child.poll() is None:
        time.sleep(0.001)
    time.sleep(delay_s)
    child.send_signal(signal.SIGKILL)
    child.wait()
    healed = open_warm()
    assert healed.records() == []
    folders = [entry.name for entry in snapshots.iterdir()] if snapshots.is_dir() else []
    assert folders == [template.id for template in kept(healed)]
    assert start(healed) in [None, *folders]
    assert len(kept(healed)) == 1


def test_a_machine_of_the_session_ends_with_it_also_when_forked(open_warm: Callable[[], Firkin]) -> None:
    warm = open_warm()
    start(warm)
    machine = warm.run(SPEC, lifetime=Lifetime.SESSION)
    assert machine._session is not None
    os.close(machine._session)
    machine._session = None
    assert open_warm().records() == []


@pytest.mark.slow
def test_an_image_with_its_own_init_is_saved_when_all_of_it_runs(warm: Firkin) -> None:
    spec = MachineSpec(image="debian", memory_mib=256)
    with warm.run(spec) as first:
        assert first.record.snapshot is None
        assert wait_until(lambda: bool(kept(warm)), timeout_s=100, interval_s=0.1), logs(warm)
        assert first.exec("true").returncode == 0
        (template,) = kept(warm)
        assert wait_until(lambda: warm.records() == [first.record], timeout_s=20, interval_s=0.1)  # its maker is gone
        with warm.run(spec) as second, warm.run(spec) as third:
            assert second.record.snapshot == third.record.snapshot == template.id
            assert second.exec("systemctl", "is-system-running").stdout.strip() in (b"running", b"degraded")
            machines = (first, second, third)
            for path in ("/etc/machine-id", "/etc/hostname", "/etc/ssh/ssh_host_ed25519_key"):
                assert len({machine.fs.read_bytes(path) for machine in machines}) == 3, path
            argv = third.ssh_argv(("hostname",), direct=False)
            said = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
            assert said.stdout.strip() == third.name


def logs(firkin: Firkin) -> str:
    return "".join(path.read_text() for path in (firkin.context.paths.home / "logs").glob("*.log"))
