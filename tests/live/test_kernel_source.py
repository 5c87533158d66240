"""Today's kernel source still takes our configuration, every option of it. Compiling it is `firkin kernel build`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from firkin.errors import HostError, ProgramFailed
from firkin.kernel import build, config, package
from firkin.paths import Paths
from firkin.progress import Step
from firkin.store.blobs import Blobs

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(300)]


def test_every_option_survives(tmp_path: Path) -> None:
    try:
        build.check_tools()
        build.check_space(tmp_path, shutil.disk_usage(tmp_path).free >> 20)
        origin = package.newest(build.METAPACKAGE, build.SOURCE_PREFIX)
    except HostError as error:
        pytest.skip(f"nothing is built here: {error}")
    tree = build.unpack(origin, tmp_path)
    build.configure(tree, build.fragment())
    assert config.lost(build.fragment(), (tree / ".config").read_text()) == []


def test_an_option_that_the_source_does_not_know_is_named(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    tree.mkdir()
    (tree / "Makefile").write_text("allnoconfig olddefconfig:\n\techo CONFIG_SMP=y > .config\n")
    with pytest.raises(HostError, match=r"linux does not take .*CONFIG_OVERLAY_FS=y"):
        build.configure(tree, build.fragment())


class Counted(Step):
    """Remembers how far it was said to be."""

    def __init__(self) -> None:
        super().__init__("Compiling")
        self.said: list[tuple[int, int | None, str]] = []

    def advance(self, done: int, total: int | None = None, unit: str = "bytes") -> None:
        self.said.append((done, total, unit))


MAKEFILE = """vmlinux:
	@echo "  CC      init/main.o"
	@echo "  AR      init/built-in.a"
	@echo "  CC      fs/open.o"
	cp /bin/busybox vmlinux
	mkdir -p include/config && echo 6.1.192-firkin > include/config/kernel.release
"""


def test_a_finished_kernel_is_counted_stripped_and_kept(tmp_path: Path) -> None:
    tree, blobs, progress = tmp_path / "linux", Blobs(Paths(tmp_path, tmp_path)), Counted()
    tree.mkdir()
    (tree / "Makefile").write_text(MAKEFILE)
    build.compile_in(tree, progress)
    assert progress.said == [(1, build.OBJECTS, "files"), (2, build.OBJECTS, "files")]
    kernel = build.adopt("build", "linux-source 6.1", tree, blobs)
    assert (kernel.version, kernel.modules_digest) == ("6.1.192-firkin", None)
    assert blobs.path(kernel.digest).stat().st_size == kernel.size_bytes


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    (tmp_path / "Makefile").write_text("vmlinux:\n\t@echo fs/open.c:1: no such header && false\n")
    with pytest.raises(ProgramFailed, match=r"fs/open\.c:1: no such header"):
        build.compile_in(tmp_path, Counted())
