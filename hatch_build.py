"""Build hook: compile the guest program so that the wheel, and an editable checkout, carry it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface):  # type: ignore[misc] # hatchling is there at build time only
    """`make -C guest` leaves src/firkin/agent/firkin-init."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        subprocess.run(["make", "-C", str(Path(self.root) / "guest")], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = False
        build_data["tag"] = "py3-none-manylinux_2_17_x86_64"
