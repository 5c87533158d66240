from __future__ import annotations

import re
from pathlib import Path

from firkin.engine.args import OPTIONS
from firkin.engine.calls import CALLS
from firkin.engine.metrics import schema
from firkin.fcapi.routes import ROUTES

PAGE = (Path(__file__).parents[3] / "docs" / "compatibility.md").read_text()
VERDICTS = dict(re.findall(r"^\| `([^`]+)` \| (same|differs|refused|ours) \|", PAGE, re.MULTILINE))


def test_the_page_has_a_verdict_on_each_call_and_flag_and_on_nothing_else() -> None:
    calls = {f"{route.method} {route.path}" for route in ROUTES}
    flags = {f"--{option.name}" for option in OPTIONS}
    assert VERDICTS.keys() == calls | flags


def test_what_is_not_refused_is_carried_out() -> None:
    for route in ROUTES:
        if VERDICTS[f"{route.method} {route.path}"] != "refused":
            assert (route.method, route.path) in CALLS


def test_the_page_speaks_of_each_group_of_metrics() -> None:
    told = set(re.findall(r"`([a-z0-9_]+)`", PAGE[PAGE.index("## Metrics") :]))
    assert schema.GROUPS.keys() <= told
