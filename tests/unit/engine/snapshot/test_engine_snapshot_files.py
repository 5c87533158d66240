from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from firkin.engine.snapshot.files import Draft


def test_nothing_changes_without_a_commit(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with Draft(str(path)) as draft:
        os.write(draft.fd, b"new")
        assert path.read_text() == "old"
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_commit_replaces_the_file_and_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o640)
    with path.open() as held:
        with Draft(str(path)) as draft:
            os.write(draft.fd, b"new")
            draft.commit()
        assert path.read_text() == "new"
        assert path.stat().st_mode & 0o777 == 0o640
        assert held.read() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_can_go_first(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with Draft(str(path)) as draft:
        draft.withdraw_old()
        draft.withdraw_old()
        assert not path.exists()
        draft.commit()
    assert path.read_text() == ""


def test_a_link_stays_and_its_target_changes(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    with Draft(str(link)) as draft:
        draft.commit()
    assert link.is_symlink()
    assert target.read_text() == ""


def test_in_place_is_only_for_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with Draft(str(path), in_place=True) as draft:
        assert not draft.in_place
        draft.commit()
    with Draft(str(path), in_place=True) as draft:
        assert draft.in_place
        os.write(draft.fd, b"more")
        assert path.read_text() == "more"


def test_a_device_is_written_not_replaced() -> None:
    with Draft("/dev/null") as draft:
        os.write(draft.fd, b"gone")
        draft.withdraw_old()
        draft.commit()
    assert Path("/dev/null").is_char_device()


@pytest.mark.parametrize("path", ["missing/file", "."])
def test_what_cannot_be_opened(path: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file|Is a directory"):
        Draft(str(tmp_path / path))


def test_in_a_folder_of_somebody_else_a_file_of_ours_is_written_in_place(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old and longer")
    inode = path.stat().st_ino
    with unprivileged(tmp_path, path):
        with Draft(str(path)) as draft:
            draft.withdraw_old()
            os.write(draft.fd, b"new")
            draft.commit()
        with pytest.raises(PermissionError):
            Draft(str(tmp_path / "another"))
    assert (path.read_text(), path.stat().st_ino) == ("new", inode)


@contextmanager
def unprivileged(folder: Path, path: Path) -> Iterator[None]:
    """As a user who may write `path`, but not the folder it is in."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    path.chmod(0o666)
    closed = {each: mode for each in folder.parents if (mode := each.stat().st_mode) & 0o011 != 0o011}
    for each, mode in closed.items():
        each.chmod(mode | 0o011)
    folder.chmod(0o755)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        for each, mode in closed.items():
            each.chmod(mode)
