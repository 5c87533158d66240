"""Every recipe of docs/recipes.md, as it stands there, prints what the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from firkin.manager.firkin import Firkin
from firkin.settings import load

pytestmark = [pytest.mark.live, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
RECIPE = re.compile(r"^## (.+?)\n+```python\n(.+?)```\n+```text\n(.+?)```$", re.MULTILINE | re.DOTALL)
RECIPES = RECIPE.findall(PAGE.read_text())


def test_every_recipe_has_a_program_and_its_output() -> None:
    assert [title for title, _, _ in RECIPES] == re.findall(r"^## (.+)$", PAGE.read_text(), re.MULTILINE)


@pytest.mark.parametrize(("title", "program", "output"), RECIPES, ids=[title for title, _, _ in RECIPES])
def test_a_recipe_prints_what_the_page_says(home: Path, tmp_path: Path, title: str, program: str, output: str) -> None:
    folder = tmp_path / "work"
    folder.mkdir()
    script = folder / "recipe.py"
    script.write_text(program)
    environ = os.environ | {"FIRKIN_HOME": str(home), "FIRKIN_KERNEL": "build", "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, script.name], cwd=folder, env=environ, capture_output=True, text=True, timeout=100
    )
    assert done.stderr == ""
    assert done.stdout.rstrip("\n") == output.rstrip("\n")
    with Firkin(load({"FIRKIN_HOME": str(home)})) as firkin:
        assert firkin.records() == []
