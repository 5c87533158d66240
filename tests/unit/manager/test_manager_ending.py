"""What the console tells of a machine's end."""

from __future__ import annotations

import pytest

from firkin.manager.ending import complaint, exit_code

END = "firkin-init: entrypoint /bin/sh {}: the machine ends"


@pytest.mark.parametrize(
    ("console", "code"),
    [
        ("", None),
        ("firkin-init: agent ready after 50 ms, vsock port 1024", None),
        (END.format("exited with 0"), 0),
        ("no newline" + END.format("exited with 7") + "\n", 7),
        (END.format("was killed by signal 9"), 137),
        (END.format("exited with 1") + "\n" + END.format("exited with 2"), 2),
        ("firkin-init: reboot was asked for: the machine ends", None),
        (END.format("exited with 99999"), None),
    ],
)
def test_the_last_line_about_the_entrypoint_has_its_code(console: str, code: int | None) -> None:
    assert exit_code(console) == code


@pytest.mark.parametrize(
    ("console", "why"),
    [
        ("firkin-init: agent ready after 50 ms\n" + END.format("exited with 0"), ""),
        ("[ 0.1] x\nfirkin-init: user bob: no such user or group in the image\n", "user bob: no such user or group"),
        ("firkin-init: module a.ko: Bad\nfirkin-init: disk /dev/vdq: not there", "disk /dev/vdq: not there"),
    ],
)
def test_the_last_complaint_is_the_one_that_counts(console: str, why: str) -> None:
    assert complaint(console).startswith(why)
    assert bool(complaint(console)) == bool(why)
