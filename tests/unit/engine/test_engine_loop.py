from __future__ import annotations

import os
import time

from firkin.engine.loop import READ, Loop


def test_handlers_run_until_one_stops_the_loop() -> None:
    loop = Loop()
    out, into = os.pipe()
    seen = []

    def read(_events: int) -> None:
        seen.append(os.read(out, 1))
        loop.stop(3)
        loop.stop(4)

    loop.watch(out, READ, read)
    os.write(into, b"a")
    assert loop.run() == 3
    assert seen == [b"a"]
    for fd in (out, into):
        os.close(fd)


def test_timers_run_in_order_and_not_early() -> None:
    loop = Loop()
    started = time.monotonic()
    seen: list[str] = []
    loop.later(0.02, lambda: seen.append("second"))
    loop.later(0.03, lambda: loop.stop(0))
    loop.later(0.0, lambda: seen.append("first"))
    loop.run()
    assert seen == ["first", "second"]
    assert time.monotonic() - started >= 0.03
