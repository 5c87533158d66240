"""Kernels by name: made once, kept while whole, replaced when their source changed, removed with their files."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from firkin.errors import HostError, NotFound, UsageError
from firkin.kernel import shelf
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.kernels import Kernel, Kernels


class FakeProvider:
    """Makes kernels of a few bytes; counts how often."""

    def __init__(self) -> None:
        self.made = 0
        self.now = "package 1"
        self.fails = False
        self.meanwhile: Callable[[], object] = lambda: None

    def source(self) -> str:
        return self.now

    def provide(self, name: str, blobs: Blobs) -> Kernel:
        self.made += 1
        with blobs.workspace("kernel") as folder:
            (folder / "vmlinux").write_text(self.now)
            (folder / "modules").write_text(f"modules of {self.now}")
            self.meanwhile()
            if self.fails:
                raise HostError("mirror unreachable")
            return Kernel(
                name=name,
                provider=name,
                version="6.1",
                source=self.now,
                digest=blobs.adopt(folder / "vmlinux"),
                modules_digest=blobs.adopt(folder / "modules"),
                size_bytes=9,
            )


class Shelf:
    """One home, and a provider under the name `debian`."""

    def __init__(self, home: Path) -> None:
        self.paths = Paths(home, home / "run")
        self.blobs = Blobs(self.paths)
        self.provider = FakeProvider()
        self.kernels = Kernels(Database(self.paths.database))

    def load(self, name: str) -> shelf.Provider:
        return self.provider

    def ensure(self, name: str = "debian") -> Kernel:
        return shelf.ensure(name, self.kernels, self.blobs, self.paths, load=self.load)

    def refresh(self, name: str = "debian") -> Kernel:
        return shelf.refresh(name, self.kernels, self.blobs, self.paths, self.provider)

    def files(self) -> set[str]:
        return {file.name for file in self.paths.blobs.glob("*")}


@pytest.fixture
def here(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_kernel_is_made_on_first_use_and_kept(here: Shelf) -> None:
    first, second = here.ensure(), here.ensure()
    assert first == second
    assert here.provider.made == 1
    assert here.files() == {first.digest, first.modules_digest}


def test_a_kernel_in_the_store_is_used_though_a_newer_one_exists(here: Shelf) -> None:
    here.ensure()
    here.provider.now = "package 2"
    assert here.ensure().source == "package 1"


def test_a_kernel_whose_file_got_lost_is_made_again(here: Shelf) -> None:
    modules = here.ensure().modules_digest
    assert modules is not None
    here.blobs.path(modules).unlink()
    here.ensure()
    assert here.provider.made == 2
    assert here.blobs.path(modules).exists()


def test_refreshing_does_nothing_while_the_source_is_the_same(here: Shelf) -> None:
    here.refresh()
    here.refresh()
    assert here.provider.made == 1


def test_refreshing_replaces_a_kernel_and_its_files(here: Shelf) -> None:
    here.refresh()
    here.provider.now = "package 2"
    newer = here.refresh()
    assert newer.source == "package 2"
    assert here.files() == {newer.digest, newer.modules_digest}


def test_a_failed_refresh_leaves_the_former_kernel_whole(here: Shelf) -> None:
    former = here.refresh()
    here.provider.now, here.provider.fails = "package 2", True
    with pytest.raises(HostError, match="mirror unreachable"):
        here.refresh()
    assert here.ensure() == former
    assert list(here.paths.work.iterdir()) == []


def test_two_callers_at_once_do_the_work_once(here: Shelf, tmp_path: Path) -> None:
    second: list[Kernel] = []

    def ask_too() -> None:
        rival = Shelf(tmp_path)
        rival.provider = here.provider
        second.append(rival.ensure())

    rival = threading.Thread(target=ask_too)
    here.provider.meanwhile = rival.start
    first = here.ensure()
    rival.join(10)
    assert second == [first]
    assert here.provider.made == 1


def test_an_unknown_kernel_is_answered_with_the_names_there_are(here: Shelf) -> None:
    here.ensure()
    with pytest.raises(NotFound) as refusal:
        here.ensure("arch")
    assert refusal.value.hint == "in the store: debian; can be had: debian, build"


def test_removing_takes_the_files_along(here: Shelf) -> None:
    here.ensure()
    shelf.remove("debian", here.kernels, here.blobs, used=[("web", "build")])
    assert here.kernels.all() == []
    assert here.files() == set()


def test_removing_spares_files_that_another_kernel_shares(here: Shelf) -> None:
    first = here.ensure("debian")
    here.ensure("build")
    shelf.remove("build", here.kernels, here.blobs, used=[])
    assert here.files() == {first.digest, first.modules_digest}


def test_a_kernel_in_use_stays_and_the_machine_is_named(here: Shelf) -> None:
    here.ensure()
    with pytest.raises(UsageError, match="in use by web") as refusal:
        shelf.remove("debian", here.kernels, here.blobs, used=[("web", "debian")])
    assert refusal.value.hint == "firkin rm --force web"
    assert here.kernels.get("debian") is not None


def test_removing_what_is_not_there_names_what_is(here: Shelf) -> None:
    with pytest.raises(NotFound, match="'arch': not found"):
        shelf.remove("arch", here.kernels, here.blobs, used=[])


def test_every_promised_provider_has_its_module() -> None:
    for name in shelf.PROVIDERS:
        provider = shelf.load_provider(name)
        assert callable(provider.provide)
        assert callable(provider.source)


@pytest.mark.parametrize(("name", "ours"), [("build", True), ("mine", True), ("firecracker-6.1", False)])
def test_a_kernel_built_here_may_have_a_name_of_its_own(name: str, ours: bool) -> None:
    shelf.check_name(name, ours=ours)


@pytest.mark.parametrize(("name", "ours"), [("build", False), ("debian", True), ("debian", False)])
def test_a_name_that_means_another_kernel_is_refused(name: str, ours: bool) -> None:
    with pytest.raises(UsageError, match="stands for another kernel"):
        shelf.check_name(name, ours=ours)


@pytest.mark.parametrize("name", ["", "My Kernel", "../x", "-x"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(UsageError, match="not a name"):
        shelf.check_name(name, ours=True)
