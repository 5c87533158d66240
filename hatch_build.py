"""Build hook: compile the C programs so that the wheel, and an editable checkout, carry them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface):  # type: ignore[misc] # hatchling is there at build time only
    """`make -C guest` leaves src/firkin/agent/firkin-init, `make -C keeper` src/firkin/vmm/firkin-keeper,
    `make -C twin` src/firkin/engine/firkin-twin."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - hatchling's signature
        for folder in ("guest", "keeper", "twin"):
            subprocess.run(["make", "-C", str(Path(self.root) / folder)], check=True)
        build_data["pure_python"] = False
        build_data["infer_tag"] = False
        build_data["tag"] = "py3-none-manylinux_2_17_x86_64"
