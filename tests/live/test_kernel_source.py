"""Today's kernel source still takes our configuration, every option of it. Compiling it is `firkin kernel build`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from firkin.errors import HostError
from firkin.kernel import build, config, package

pytestmark = [pytest.mark.live, pytest.mark.slow, pytest.mark.timeout(300)]


def test_every_option_survives(tmp_path: Path) -> None:
    try:
        build.check_tools()
        build.check_space(tmp_path, shutil.disk_usage(tmp_path).free >> 20)
        origin = package.newest(build.METAPACKAGE, build.SOURCE_PREFIX)
    except HostError as error:
        pytest.skip(f"nothing is built here: {error}")
    tree = build.unpack(origin, tmp_path)
    build.configure(tree)
    assert config.lost(build.fragment(), (tree / ".config").read_text()) == []


def test_an_option_that_the_source_does_not_know_is_named(tmp_path: Path) -> None:
    tree = tmp_path / "linux"
    tree.mkdir()
    (tree / "Makefile").write_text("allnoconfig olddefconfig:\n\techo CONFIG_SMP=y > .config\n")
    with pytest.raises(HostError, match=r"linux does not take .*CONFIG_OVERLAY_FS=y"):
        build.configure(tree)
