"""docker cp's rules: what is copied where, and what is refused, for each spelling of both ends."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from firkin.cli.copy import End, parse_end
from firkin.errors import FirkinError, GuestFileError, UsageError
from firkin.manager.copy import HostSide
from firkin.manager.copying import CopyPlan, Look, Source, Spelling, find_source, find_target, plan_copy, resolve, spell

FOLDER, FILE = Look(is_dir=True), Look(size=5)


class Tree:
    """A side that knows these names."""

    def __init__(self, **names: Look) -> None:
        self._names = {"/": FOLDER, ".": FOLDER} | {f"/{name.replace('_', '/')}": look for name, look in names.items()}

    def look(self, path: str) -> Look | None:
        return self._names.get(path)

    def error(self, path: str, code: int) -> FirkinError:
        return GuestFileError(path, code)


TREE = Tree(
    dir=FOLDER,
    dir_sub=FOLDER,
    file=FILE,
    todir=Look(target="dir"),
    tofile=Look(target="/file"),
    tolink=Look(target="todir/"),
    dangling=Look(target="dir/new"),
    lost=Look(target="nosuch/new"),
    loop=Look(target="/loop"),
)


@pytest.mark.parametrize(
    ("path", "spelling"),
    [
        ("/a/b", Spelling("/a/b")),
        ("/a/b/", Spelling("/a/b", folder=True)),
        ("/a/b//", Spelling("/a/b", folder=True)),
        ("/a/b/.", Spelling("/a/b", folder=True, content=True)),
        ("/a/b/./", Spelling("/a/b", folder=True, content=True)),
        ("/a/..", Spelling("/a/..", folder=True, content=True)),
        ("/", Spelling("/", folder=True, content=True)),
        ("/.", Spelling("/", folder=True, content=True)),
        (".", Spelling(".", folder=True, content=True)),
        ("./", Spelling(".", folder=True, content=True)),
        ("..", Spelling("..", folder=True, content=True)),
        ("a", Spelling("a")),
        ("/a/.hidden", Spelling("/a/.hidden")),
        ("/a/b.", Spelling("/a/b.")),
    ],
)
def test_the_end_of_a_path_says_what_is_meant(path: str, spelling: Spelling) -> None:
    assert spell(path) == spelling


@pytest.mark.parametrize(
    ("source", "target", "plan"),
    [
        ("/file", "/dir", CopyPlan("/dir", "file")),
        ("/file", "/dir/", CopyPlan("/dir", "file")),
        ("/file", "/dir/new", CopyPlan("/dir", "new")),
        ("/file", "/file", CopyPlan("/", "file")),
        ("/file", "/new", CopyPlan("/", "new")),
        ("/file", "/todir", CopyPlan("/dir", "file")),
        ("/file", "/tofile", CopyPlan("/", "file")),
        ("/file", "/dangling", CopyPlan("/dir", "new")),
        ("/dir", "/dir", CopyPlan("/dir", "dir")),
        ("/dir/", "/dir", CopyPlan("/dir", "dir")),
        ("/dir", "/new", CopyPlan("/", "new")),
        ("/dir", "/new/", CopyPlan("/", "new")),
        ("/dir/.", "/dir/sub", CopyPlan("/dir/sub", None)),
        ("/dir/.", "/new", CopyPlan("/", "new")),
        ("/", "/new", CopyPlan("/", "new")),
        ("/", "/dir", CopyPlan("/dir", None)),
        ("/dir", ".", CopyPlan(".", "dir")),
        ("/todir", "/dir/new", CopyPlan("/dir", "new")),
        ("/todir/", "/dir/sub", CopyPlan("/dir/sub", "todir")),
        ("/todir/.", "/dir/sub", CopyPlan("/dir/sub", None)),
    ],
)
def test_where_a_copy_goes(source: str, target: str, plan: CopyPlan) -> None:
    assert plan_copy(find_source(TREE, source, follow=False), find_target(TREE, target)) == plan


@pytest.mark.parametrize(
    ("source", "target", "reason"),
    [
        ("/nosuch", "/dir", "/nosuch: No such file"),
        ("/file/", "/dir", "/file/: Not a directory"),
        ("/file/.", "/dir", "/file/.: Not a directory"),
        ("/dir", "/file", "a folder cannot be copied onto a file"),
        ("/dir/.", "/tofile", "a folder cannot be copied onto a file"),
        ("/file", "/file/", "is not a folder"),
        ("/file", "/new/", "no such folder"),
        ("/file", "/nosuch/new", "/nosuch: No such file"),
        ("/file", "/file/new", "/file: Not a directory"),
        ("/file", "/lost", "/nosuch: No such file"),
        ("/loop/", "/dir", "Too many levels"),
        ("/file", "/loop", "Too many levels"),
    ],
)
def test_what_cannot_be_copied_is_told(source: str, target: str, reason: str) -> None:
    with pytest.raises((UsageError, GuestFileError), match=reason):
        plan_copy(find_source(TREE, source, follow=False), find_target(TREE, target))


def test_a_link_is_copied_as_a_link_unless_it_is_to_be_followed() -> None:
    assert find_source(TREE, "/tolink", follow=False) == Source("/tolink", "tolink", False, size=0)
    assert find_source(TREE, "/tolink", follow=True) == Source("/dir", "tolink", True)
    assert find_source(TREE, "/tofile", follow=True) == Source("/file", "tofile", False, size=5)


def test_links_on_the_host_end_where_the_kernel_says(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real/")
    at, look = resolve(HostSide(), str(tmp_path / "link"))
    assert (at, look is not None and look.is_dir) == (str(tmp_path / "real"), True)
    assert str(HostSide().error("x", errno.ENOENT)) == "x: No such file or directory"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("web:/etc", End("web", "/etc")),
        ("web:etc/x", End("web", "etc/x")),
        ("web:", End("web", "/")),
        ("web:/a:b", End("web", "/a:b")),
        ("./web:x", End(None, "./web:x")),
        ("/a:b", End(None, "/a:b")),
        ("../a:b", End(None, "../a:b")),
        ("file", End(None, "file")),
        (":x", End(None, ":x")),
        ("-", End(None, "-")),
    ],
)
def test_which_ends_are_in_a_machine(text: str, end: End) -> None:
    assert parse_end(text) == end
