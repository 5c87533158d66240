"""Snapshots out of one home and into another; what comes from elsewhere is hostile."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from snapshot_world import MEMORY_MIB, pages, put

from firkin.errors import FirkinError, HostError, NameTaken, UsageError
from firkin.manager import snapshots
from firkin.manager.arrival import import_from
from firkin.manager.context import Context
from firkin.manager.snapshot_files import Files
from firkin.manager.transport import export_to
from firkin.settings import load

needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="needs zstd")


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Callable[[str], Context]]:
    """Homes by name."""
    opened: list[Context] = []

    def open_home(name: str) -> Context:
        opened.append(Context(load({"FIRKIN_HOME": str(tmp_path / name)})))
        return opened[-1]

    yield open_home
    for context in opened:
        context.close()


def expect_nothing(context: Context) -> None:
    assert context.snapshots.all() == []
    assert context.ledger.owners() == []
    folder = context.paths.home / "snapshots"
    assert not folder.exists() or list(folder.iterdir()) == []


@pytest.mark.parametrize("suffix", [pytest.param(".tar.zst", marks=needs_zstd), ".tar"])
def test_a_chain_arrives_as_it_was(home: Callable[[str], Context], tmp_path: Path, suffix: str) -> None:
    here, there = home("here"), home("there")
    put(here, 1, {0: b"a", 5: b"a", 8191: b"z"})
    second = put(here, 2, {5: b"b"}, parent=1)
    file = tmp_path / f"out{suffix}"
    export_to(here, second, file)
    assert file.stat().st_size < 1 << 20

    done = import_from(there, file)
    assert [record.name for record in there.snapshots.all()] == ["s1", "s2"]
    assert (done.record.parent, done.record.digests) == (second.parent, second.digests)
    assert snapshots.verify(there, done.record) == []
    memory = Files.of(there.paths, second.id).memory
    assert memory.stat().st_blocks * 512 < 1 << 20
    assert pages(memory) == {5: b"b"}
    assert pages(snapshots.materialize(there, done.record).memory) == {0: b"a", 5: b"b", 8191: b"z"}
    assert any("image busybox is not here" in note for note in done.notes)
    assert there.ledger.owners() == []


def test_merged_it_arrives_as_one(home: Callable[[str], Context], tmp_path: Path) -> None:
    here, there = home("here"), home("there")
    put(here, 1, {0: b"a", 5: b"a"})
    second = put(here, 2, {5: b"b"}, parent=1)
    export_to(here, second, tmp_path / "out.tar", merge=True)
    record = import_from(there, tmp_path / "out.tar", name="whole").record
    assert (record.name, record.parent, len(there.snapshots.all())) == ("whole", None, 1)
    assert pages(Files.of(there.paths, record.id).memory) == {0: b"a", 5: b"b"}


def test_what_is_here_already_is_shared(home: Callable[[str], Context], tmp_path: Path) -> None:
    here, there = home("here"), home("there")
    put(here, 1, {0: b"a"})
    for number in (2, 3):
        export_to(here, put(here, number, {number: b"b"}, parent=1), tmp_path / f"{number}.tar")
    import_from(there, tmp_path / "2.tar")
    import_from(there, tmp_path / "3.tar")
    assert [(record.name, record.parent) for record in there.snapshots.all()] == [
        ("s1", None), ("s2", f"{1:012x}"), ("s3", f"{1:012x}")
    ]  # fmt: skip
    with pytest.raises(NameTaken, match="here already"):
        import_from(there, tmp_path / "3.tar")
    assert len(there.snapshots.all()) == 3


def test_a_taken_name_leaves_nothing_and_another_may_be_given(home: Callable[[str], Context], tmp_path: Path) -> None:
    here, there = home("here"), home("there")
    export_to(here, put(here, 1, {0: b"a"}), tmp_path / "out.tar")
    other = put(there, 7, {0: b"x"})
    there.db.connection.execute("UPDATE snapshots SET name = 's1' WHERE id = ?", (other.id,))
    with pytest.raises(NameTaken):
        import_from(there, tmp_path / "out.tar")
    assert len(there.snapshots.all()) == 1
    assert import_from(there, tmp_path / "out.tar", name="mine").record.name == "mine"


def test_tar_reads_it_too(home: Callable[[str], Context], tmp_path: Path) -> None:
    here = home("here")
    record = put(here, 1, {0: b"a", 77: b"c"})
    export_to(here, record, tmp_path / "out.tar")
    (tmp_path / "unpacked").mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "out.tar", "-C", tmp_path / "unpacked"], check=True)
    assert pages(tmp_path / "unpacked" / record.id / "memory") == {0: b"a", 77: b"c"}
    assert json.loads((tmp_path / "unpacked" / "snapshot.json").read_text())["links"][0]["name"] == "s1"


def rewritten(file: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    """The same archive with another manifest."""
    source, target = tarfile.open(file), tarfile.open(file.with_suffix(".evil"), "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115
    with source, target:
        for info in source.getmembers():
            content = source.extractfile(info)
            assert content is not None
            data = content.read()
            if info.name == "snapshot.json":
                manifest = json.loads(data)
                change(manifest)
                data = json.dumps(manifest).encode()
            plain = tarfile.TarInfo(info.name)
            plain.size = len(data)
            target.addfile(plain, io.BytesIO(data))
    return file.with_suffix(".evil")


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(manifest: dict[str, Any]) -> None:
        place: Any = manifest
        *way, last = path.split(".")
        for step in way:
            place = place[int(step)] if step.isdigit() else place[step]
        place[last] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        _set("links.0.id", "../../../etc"),
        _set("links.0.id", "00000000000a\n"),
        _set("links.0.id", f"{9:012x}"),
        _set("links.0.name", "../x"),
        _set("links.0.kernel_digest", "../../etc/passwd"),
        _set("links.0.image_digest", "0"),
        _set("links.0.digests.memory", "0" * 64),
        _set("links.0.digests.state", "0" * 64),
        _set("links.0.spec.memory_mib", MEMORY_MIB + 1),
        _set("links.0.spec.memory_mib", 1 << 40),
        _set("links.0.spec.vcpus", -1),
        _set("links.0.spec.env", ["=", "\0"]),
        _set("links.0.engine", "sh"),
        _set("links.0.mac", "06:00"),
        _set("links.0.created_at", -1),
        _set("links.0.parent", "x"),
        _set("links", []),
        _set("format", "firkin snapshot 2"),
        _set("unknown", 1),
        lambda manifest: manifest["links"].append(manifest["links"][0]),
        lambda manifest: manifest["links"].append(manifest["links"][0] | {"id": f"{5:012x}"}),
    ],
)
def test_a_manifest_that_lies_is_refused(
    home: Callable[[str], Context], tmp_path: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    here, there = home("here"), home("there")
    export_to(here, put(here, 1, {0: b"a"}), tmp_path / "out.tar")
    with pytest.raises(UsageError) as refusal:
        import_from(there, rewritten(tmp_path / "out.tar", change))
    assert refusal.value.hint
    expect_nothing(there)


def test_an_honest_rewritten_manifest_is_taken(home: Callable[[str], Context], tmp_path: Path) -> None:
    here, there = home("here"), home("there")
    export_to(here, put(here, 1, {0: b"a"}), tmp_path / "out.tar")
    import_from(there, rewritten(tmp_path / "out.tar", lambda manifest: None))


def test_a_file_that_is_missing_or_no_archive_is_told(home: Callable[[str], Context], tmp_path: Path) -> None:
    there = home("there")
    with pytest.raises(HostError, match="No such file"):
        import_from(there, tmp_path / "nosuch")
    (tmp_path / "empty").touch()
    with pytest.raises(UsageError, match="too early"):
        import_from(there, tmp_path / "empty")
    with pytest.raises(HostError, match="cannot read"):
        import_from(there, tmp_path)
    expect_nothing(there)


@needs_zstd
def test_a_damaged_compressed_file_is_told(home: Callable[[str], Context], tmp_path: Path) -> None:
    here, there = home("here"), home("there")
    export_to(here, put(here, 1, {page: os.urandom(1) for page in range(64)}), tmp_path / "out.tar.zst")
    data = (tmp_path / "out.tar.zst").read_bytes()
    (tmp_path / "short.zst").write_bytes(data[: len(data) // 2])
    with pytest.raises(UsageError, match="damaged"):
        import_from(there, tmp_path / "short.zst")
    expect_nothing(there)


def test_an_export_that_fails_leaves_no_file(home: Callable[[str], Context], tmp_path: Path) -> None:
    here = home("here")
    record = put(here, 1, {0: b"a"})
    Files.of(here.paths, record.id).memory.unlink()
    (tmp_path / "out").mkdir()
    for name in ("out.tar", "out.tar.zst"):
        with pytest.raises((FirkinError, OSError)):
            export_to(here, record, tmp_path / "out" / name)
    assert list((tmp_path / "out").iterdir()) == []
    with pytest.raises(HostError, match="cannot write"):
        export_to(here, record, tmp_path / "nosuch" / "out.tar")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_gets_in(home: Callable[[str], Context], tmp_path: Path, data: st.DataObject) -> None:
    """Whatever bytes change: the import is refused and leaves nothing, or what came is what left."""
    file = tmp_path / "out.tar"
    if not file.exists():
        here = home("here")
        put(here, 1, {0: b"a", 9: b"a"})
        export_to(here, put(here, 2, {9: b"b"}, parent=1), file)
    content = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    (tmp_path / "bad").write_bytes(content)
    there = home("there")
    try:
        record = import_from(there, tmp_path / "bad").record
    except FirkinError:
        expect_nothing(there)
    else:
        assert snapshots.verify(there, record) == []
        for gone in reversed(there.snapshots.all()):
            snapshots.remove(there, gone)
        expect_nothing(there)
    there.close()
