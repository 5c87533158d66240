"""Images by name: built once, found again, rebuilt when broken, removed when unused."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from firkin.errors import HostError, NotFound, UsageError
from firkin.image import shelf
from firkin.image.build import build
from firkin.image.recipe import Recipe
from firkin.paths import Paths
from firkin.store.blobs import Blobs
from firkin.store.db import Database
from firkin.store.images import Image, Images


@dataclass
class Shelf:
    """One home, its tables, and a builder that writes bytes in place of a file system."""

    paths: Paths
    content: bytes = b"tree"
    builds: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.blobs = Blobs(self.paths)
        self.images = Images(Database(self.paths.database))

    def make(self, recipe: Recipe, workspace: Path) -> Path:
        self.builds.append(recipe.name)
        file = workspace / "root.squashfs"
        file.write_bytes(self.content)
        return file

    def build(self, recipe: Recipe, images: Images, blobs: Blobs) -> Image:
        return build(recipe, images, blobs, self)

    def ensure(self, reference: str, images: Images | None = None) -> Image:
        return shelf.ensure(reference, images or self.images, self.blobs, self.paths, build=self.build)

    def remove(self, reference: str, used: tuple[tuple[str, str], ...] = ()) -> Image:
        return shelf.remove(reference, self.images, self.blobs, self.paths, used)


@pytest.fixture
def home(tmp_path: Path) -> Shelf:
    return Shelf(Paths(tmp_path, tmp_path / "run"))


def test_an_image_is_built_on_first_use_and_then_found(home: Shelf) -> None:
    first = home.ensure("debian")
    assert home.ensure("debian:latest") == first
    assert home.builds == ["debian"]
    assert home.blobs.path(first.digest).read_bytes() == b"tree"


def test_of_two_callers_at_once_one_builds(home: Shelf) -> None:
    found: list[Image] = []

    def ask() -> None:
        found.append(home.ensure("debian", Images(Database(home.paths.database))))

    callers = [threading.Thread(target=ask) for _ in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10)
    assert home.builds == ["debian"]
    assert len({image.digest for image in found}) == 1
    assert len(found) == 4


def test_a_row_whose_blob_vanished_is_built_again(home: Shelf) -> None:
    home.blobs.path(home.ensure("debian").digest).unlink()
    assert home.blobs.path(home.ensure("debian").digest).exists()
    assert home.builds == ["debian", "debian"]


@pytest.mark.parametrize("reference", ["nosuch", "debian:13", "", ":", "Debian", "../debian"])
def test_what_cannot_be_built_names_what_can(home: Shelf, reference: str) -> None:
    home.ensure("busybox")
    with pytest.raises(NotFound) as caught:
        home.ensure(reference)
    assert "busybox:latest" in caught.value.hint
    assert "debian" in caught.value.hint


def test_a_failed_build_leaves_nothing(home: Shelf) -> None:
    def fail(recipe: Recipe, images: Images, blobs: Blobs) -> Image:
        with blobs.workspace("image") as workspace:
            (workspace / "half").write_bytes(b"x")
            raise HostError("no")

    with pytest.raises(HostError):
        shelf.ensure("debian", home.images, home.blobs, home.paths, build=fail)
    assert home.images.all() == []
    assert list(home.paths.work.iterdir()) == []
    assert home.ensure("debian").name == "debian"


def test_building_anew_drops_the_former_blob(home: Shelf) -> None:
    former = home.ensure("debian")
    home.content = b"newer"
    image = shelf.rebuild("debian", home.images, home.blobs, home.paths, build=home.build)
    assert home.blobs.path(image.digest).exists()
    assert not home.blobs.path(former.digest).exists()


def test_a_blob_that_snapshots_need_outlives_its_image(home: Shelf) -> None:
    former = home.ensure("debian")
    home.content = b"newer"
    image = shelf.rebuild("debian", home.images, home.blobs, home.paths, {former.digest}, build=home.build)
    assert home.blobs.path(former.digest).exists()
    shelf.remove("debian", home.images, home.blobs, home.paths, (), {image.digest})
    assert home.images.all() == []
    assert home.blobs.path(image.digest).exists()


def test_a_machines_image_stays(home: Shelf) -> None:
    home.ensure("debian")
    with pytest.raises(UsageError, match="in use by web"):
        home.remove("debian", (("web", "debian:latest"), ("other", "busybox")))
    assert home.ensure("debian").name == "debian"
    assert home.builds == ["debian"]


def test_removing_keeps_a_blob_that_another_image_shares(home: Shelf) -> None:
    image = home.ensure("debian")
    home.ensure("busybox")  # the builder writes the same bytes
    home.remove("debian")
    assert home.blobs.path(image.digest).exists()
    home.remove("busybox")
    assert not home.blobs.path(image.digest).exists()
    with pytest.raises(NotFound):
        home.remove("busybox")
