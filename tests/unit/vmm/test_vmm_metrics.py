"""Lines of metrics add up, whatever came of the file in between."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

from firkin.engine.metrics.lines import Lines
from firkin.errors import EngineError
from firkin.vmm.metrics import KEPT_BYTES, EngineStats, add_up, read


class Engine:
    """Writes lines as an engine does: at the file's end, or like Firecracker where it wrote last."""

    def __init__(self, path: Path, *, appends: bool) -> None:
        self._file = path.open("ab" if appends else "wb", buffering=0)
        self._lines = Lines()
        self._carried = 0

    def carry(self, count: int, times: int = 1) -> None:
        for _ in range(times):
            self._carried += count
            totals = {
                "block": {"read_bytes": self._carried, "write_bytes": 2 * self._carried},
                "net": {"rx_bytes_count": 3 * self._carried, "tx_bytes_count": 4 * self._carried},
                "vsock": {"rx_bytes_count": 5 * self._carried, "tx_bytes_count": 6 * self._carried},
            }
            self._file.write(json.dumps(self._lines.next(totals, 0)).encode() + b"\n")
            self._lines.told()

    def write(self, data: bytes) -> None:
        self._file.write(data)

    def close(self) -> None:
        self._file.close()


def stats(carried: int) -> EngineStats:
    return EngineStats(
        disk_read_bytes=carried,
        disk_written_bytes=2 * carried,
        net_received_bytes=3 * carried,
        net_sent_bytes=4 * carried,
        vsock_received_bytes=5 * carried,
        vsock_sent_bytes=6 * carried,
    )


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


@pytest.mark.parametrize("appends", [True, False])
def test_lines_add_up_and_are_forgotten(tmp_path: Path, appends: bool) -> None:
    path = tmp_path / "metrics.json"
    engine = Engine(path, appends=appends)
    engine.carry(10)
    assert add_up(path) == stats(10)
    engine.carry(1, times=200)
    assert on_disk(path) > KEPT_BYTES
    assert add_up(path) == stats(210)
    assert on_disk(path) <= 4096
    engine.carry(5)
    assert add_up(path) == add_up(path) == stats(215)
    engine.close()


def test_a_line_that_is_not_whole_yet_waits(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    engine = Engine(path, appends=True)
    engine.carry(10)
    whole = path.read_bytes()
    engine.write(whole[:100])
    assert add_up(path) == stats(10)
    engine.write(whole[100:])
    assert add_up(path) == stats(20)
    engine.close()


def test_two_readers_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    engine = Engine(path, appends=True)
    engine.carry(1, times=300)
    seen: list[EngineStats] = []
    readers = [threading.Thread(target=lambda: seen.append(add_up(path))) for _ in range(4)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert seen == [stats(300)] * 4
    engine.close()


@pytest.mark.parametrize("text", [b"{}\n", b"no json\n", b'{"block": {"read_bytes": "many"}}\n', b"\0\0\n"])
def test_a_file_that_makes_no_sense_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "metrics.json"
    path.write_bytes(text)
    with pytest.raises(EngineError, match="metrics that make no sense"):
        add_up(path)


def test_an_engine_without_metrics_has_none(tmp_path: Path) -> None:
    assert read(tmp_path) is None
    assert list(tmp_path.iterdir()) == []
