"""`firkin.run` and `firkin.get`: a machine in one call, for programs that need no more of a home than that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from firkin.errors import UsageError
from firkin.manager.firkin import Firkin
from firkin.manager.machine import Machine
from firkin.settings import Settings
from firkin.spec import Environment, MachineSpec
from firkin.store.machines import Lifetime


def run(
    image: str | MachineSpec = "debian",
    *,
    name: str | None = None,
    vcpus: int = 1,
    memory_mib: int = 256,
    kernel: str | None = None,
    network: str = "default",
    command: Sequence[str] = (),
    env: Environment = (),
    boot_args: str = "",
    boot_timeout_s: float = 60.0,
    detach: bool = False,
    settings: Settings | None = None,
) -> Machine:
    """Boot a machine and wait until its agent answers. Image and kernel are made on first use, which may take minutes.

    `command` replaces the image's entrypoint, `env` is a mapping or NAME=VALUE words for all that runs in the guest.
    A complete `MachineSpec` may stand in the image's place. The machine is removed at the end of its `with`, and in any
    case when this process ends. With `detach`, as in `docker run -d`, it outlives both: `get` finds it again by name.

    Raises:
        InvalidSpec, NotFound, NameTaken, UsageError: the request cannot be met; nothing was touched.
        HostError, EngineError: the host or the VMM failed; all was undone.
        BootTimeout: the guest did not answer within `boot_timeout_s` seconds; all was undone.
    """
    options: dict[str, Any] = {
        "name": name, "vcpus": vcpus, "memory_mib": memory_mib, "kernel": kernel, "network": network,
        "command": command, "env": env, "boot_args": boot_args, "boot_timeout_s": boot_timeout_s,
    }  # fmt: skip
    spec = MachineSpec(image=image, **options) if isinstance(image, str) else _alone(image, options)
    lifetime = Lifetime.KEPT if detach else Lifetime.SESSION
    return Firkin(settings).run(spec, lifetime=lifetime, outlives=detach)


def get(name: str, *, settings: Settings | None = None) -> Machine:
    """A machine that exists, by name or by the beginning of its id. Its `with` hangs up and leaves the machine alone.

    Raises:
        NotFound: there is none.
        UsageError: the beginning fits several.
    """
    return Firkin(settings).machine(name)


def _alone(spec: MachineSpec, options: dict[str, Any]) -> MachineSpec:
    """A spec says it all: options beside it would be ignored."""
    defaults = MachineSpec()
    given = [key for key, value in options.items() if value != getattr(defaults, key)]
    if given:
        raise UsageError(f"run: {', '.join(given)} given beside a MachineSpec", hint="put it into the spec")
    return spec
