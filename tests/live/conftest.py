"""What live tests share: a home of their own each, with kernels and images borrowed from one made beforehand."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from agent_rig import Agent, build_native, serve
from task_rig import Tasks, build, fill_zoo

from firkin.manager.context import Context
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import load
from firkin.spec import MachineSpec

TEST_HOME = os.environ.get("FIRKIN_TEST_HOME", "")
KERNEL = os.environ.get("FIRKIN_TEST_KERNEL_NAME", "build")
# The first finds its devices by the command line, the others by ACPI only.
KERNEL_PATHS = {
    "build": "FIRKIN_TEST_KERNEL",
    "firecracker-6.1": "FIRKIN_TEST_ACPI_KERNEL",
    "debian": "FIRKIN_TEST_DEBIAN_KERNEL",
}


def pytest_configure(config: pytest.Config) -> None:
    """Tests of single rooms take the kernel as a path."""
    if TEST_HOME and (Path(TEST_HOME) / "blobs" / "sha256").is_dir():
        with tempfile.TemporaryDirectory() as folder, closing(lent_store(Path(folder) / "home")) as context:
            for name, variable in KERNEL_PATHS.items():
                if (kernel := context.kernels.get(name)) is not None:
                    os.environ.setdefault(variable, str(context.blobs.path(kernel.digest).resolve()))


def lent_store(home: Path) -> Context:
    """A store of its own in `home` that knows the kernels and images of the prepared one.

    The prepared home is only read, so that trees of several versions can share it.
    """
    home.mkdir()
    (home / "blobs").symlink_to(Path(TEST_HOME) / "blobs")
    prepared = sqlite3.connect(f"file:{TEST_HOME}/firkin.db?mode=ro", uri=True)
    with closing(prepared), closing(sqlite3.connect(home / "firkin.db")) as copy:
        prepared.backup(copy)
    return Context(load({"FIRKIN_HOME": str(home)}))


def borrowed_home(home: Path) -> Path:
    """Make a FIRKIN_HOME that nothing else uses, where kernels and images are already at hand."""
    if not TEST_HOME:
        pytest.skip("FIRKIN_TEST_HOME names no prepared home; script/test makes one")
    if os.geteuid() != 0:
        pytest.skip("needs root")
    lent_store(home).close()
    return home


@contextmanager
def lent_home(home: Path) -> Iterator[Path]:
    """The same for a scope, after which its zygotes end: they do when their folder is gone."""
    yield borrowed_home(home)
    shutil.rmtree(home / "run" / "zygotes", ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A home for one test."""
    with lent_home(tmp_path / "home") as home:
        yield home


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home for all tests of a module."""
    with lent_home(tmp_path_factory.mktemp("shared") / "home") as home:
        yield home


@pytest.fixture(scope="module")
def box(shared_home: Path) -> Iterator[Machine]:
    """A busybox machine named `box` that the tests of a module share; none of them may break it."""
    settings = load({"FIRKIN_HOME": str(shared_home), "FIRKIN_KERNEL": KERNEL, "FIRKIN_COLD": "1"})
    with Firkin(settings) as firkin, firkin.run(MachineSpec(name="box", image="busybox", memory_mib=256)) as machine:
        yield machine


@pytest.fixture
def open_firkin(home: Path) -> Iterator[Callable[[], Firkin]]:
    """Open the home as often as a test wants, to boot machines; every one in it is removed at the end."""
    opened: list[Firkin] = []
    environ = {
        "FIRKIN_HOME": str(home), "FIRKIN_KERNEL": KERNEL, "FIRKIN_IMAGE": "busybox", "FIRKIN_COLD": "1",
    }  # fmt: skip

    def open_it() -> Firkin:
        opened.append(Firkin(load(environ)))
        return opened[-1]

    yield open_it
    with Firkin(load({"FIRKIN_HOME": str(home)})) as last:
        for record in last.records():
            last.machine(record.id).remove(force=True)
    for firkin in opened:
        firkin.close()


@pytest.fixture
def firkin(open_firkin: Callable[[], Firkin]) -> Firkin:
    """One open home: built kernel, busybox image, own network."""
    return open_firkin()


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with the guest's programs, built to run and be checked here."""
    return build_native(tmp_path_factory.mktemp("native"))


@pytest.fixture
def agent(native: Path, tmp_path: Path) -> Iterator[Agent]:
    """A checked agent on a socket of its own."""
    with serve(native, tmp_path / "agent.sock") as agent:
        yield agent


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """The agent's tasks, to be run on this host."""
    return build(tmp_path_factory.mktemp("tasks"))


@pytest.fixture(scope="session")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Tasks:
    """The same with bounds that a test can meet."""
    return build(tmp_path_factory.mktemp("tight"), "-DTAR_MAP_MAX=64 -DTAR_LATE_MAX=8")


@pytest.fixture
def zoo(tmp_path: Path) -> Path:
    """A folder with one of everything that an archive can hold."""
    fill_zoo(tmp_path / "zoo")
    return tmp_path / "zoo"


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """An empty folder to unpack into."""
    target = tmp_path / "target"
    target.mkdir()
    return target


@pytest.fixture
def scratch(tmp_path: Path) -> Callable[[], Path]:
    """A new empty folder at each call, for the many examples of one test."""
    return lambda: Path(tempfile.mkdtemp(dir=tmp_path))
