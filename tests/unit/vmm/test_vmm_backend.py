"""Which engines can be forked, and what they get to know of the user's environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from firkin.errors import InvalidSpec
from firkin.settings import load
from firkin.vmm import backend

LOG = Path("/log")


def test_only_our_own_engine_has_a_zygote() -> None:
    assert backend.has_zygote(backend.argv("firkin-vmm", "a", LOG))
    assert not backend.has_zygote(backend.argv("firecracker", "a", LOG))


def test_an_engine_sees_nothing_that_is_not_for_it() -> None:
    environ = {"PATH": "/bin", "AWS_SECRET_ACCESS_KEY": "x", "PYTHONPATH": "/x", "TZ": "UTC"}
    assert backend.environment(environ) == {"PATH": "/bin", "TZ": "UTC"}


def test_the_zygote_waits_as_long_as_is_set_and_zero_is_none() -> None:
    assert load({}).zygote == 60
    assert load({"FIRKIN_ZYGOTE": "0"}).zygote == 0
    with pytest.raises(InvalidSpec, match="from 0 to"):
        load({"FIRKIN_ZYGOTE": "-1"})
