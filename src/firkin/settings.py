"""What the user set once: environment and config file → `Settings`, read once per process.

Precedence, highest first: command-line flags (they never come here), `FIRKIN_*` variables, `config.toml`, defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from firkin.errors import InvalidSpec
from firkin.paths import Paths

E = TypeVar("E", bound=StrEnum)
MAX_NUMBER = 2**20


class NetworkMode(StrEnum):
    """Where a network lives (see docs/networks.md)."""

    HOST = "host"  # the root namespace, as in Firecracker's tutorial
    OWN = "own"  # a namespace that firkin makes: the host's network stays untouched


class EngineChoice(StrEnum):
    """Which executable serves Firecracker's API."""

    AUTO = "auto"  # what the host check says
    FIRECRACKER = "firecracker"
    FIRKIN_VMM = "firkin-vmm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that has a default and may be set outside the command line."""

    paths: Paths
    network_mode: NetworkMode = NetworkMode.OWN
    engine: EngineChoice = EngineChoice.AUTO
    kernel: str = "debian"
    image: str = "debian"
    console_log_mib: int = 8  # of one of the two files that a machine's console log has
    templates_mib: int = 2048  # on disk, of all templates together
    cold: bool = False  # boot every machine, and keep no templates
    zygote: int = 60  # seconds that a warm process waits for engines to start; 0: none is kept


def load(environ: Mapping[str, str] = os.environ, *, uid: int | None = None) -> Settings:
    """Read the environment and the config file.

    Raises:
        InvalidSpec: a variable or key holds a value that does not exist, or the file is not TOML.
    """
    paths = Paths.resolve(environ, os.geteuid() if uid is None else uid)
    merged = _read_config(paths.config) | _from_environment(environ)
    return Settings(
        paths=paths,
        network_mode=_choice(NetworkMode, merged, "network_mode", NetworkMode.OWN),
        engine=_choice(EngineChoice, merged, "engine", EngineChoice.AUTO),
        kernel=str(merged.get("kernel", "debian")),
        image=str(merged.get("image", "debian")),
        console_log_mib=_number(merged, "console_log_mib", 8),
        templates_mib=_number(merged, "templates_mib", 2048),
        cold=_switch(merged, "cold"),
        zygote=_number(merged, "zygote", 60, least=0),
    )


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    keys = ("network_mode", "engine", "kernel", "image", "console_log_mib", "templates_mib", "cold", "zygote")
    return {key: environ[f"FIRKIN_{key.upper()}"] for key in keys if environ.get(f"FIRKIN_{key.upper()}")}


def _read_config(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text()
    except FileNotFoundError:
        return {}
    import tomllib  # few have such a file

    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidSpec(f"{path}: not valid TOML: {error}", hint=f"mend or remove {path}") from error


def _choice(kind: type[E], values: Mapping[str, Any], key: str, default: E) -> E:
    try:
        return kind(values.get(key, default))
    except ValueError as error:
        known = ", ".join(kind)
        raise InvalidSpec(f"{key}: {values[key]!r} is not one of {known}", hint=f"set FIRKIN_{key.upper()}") from error


def _number(values: Mapping[str, Any], key: str, default: int, *, least: int = 1) -> int:
    try:
        number = int(values.get(key, default))
    except (TypeError, ValueError):
        number = -1
    if not least <= number <= MAX_NUMBER:
        raise InvalidSpec(
            f"{key}: {values[key]!r} is not a number from {least} to {MAX_NUMBER}", hint=f"{key} = {default}"
        )
    return number


def _switch(values: Mapping[str, Any], key: str) -> bool:
    """TOML's true and false; 1 and 0 where only text can be given."""
    value = values.get(key, False)
    if isinstance(value, bool):
        return value
    if value not in ("0", "1"):
        raise InvalidSpec(f"{key}: {value!r} is neither 0 nor 1", hint=f"set FIRKIN_{key.upper()}")
    return bool(value == "1")
