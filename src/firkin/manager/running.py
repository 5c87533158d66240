"""`run`: a fork of the template of its kind where there is one, else a boot."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING

from firkin.errors import EngineError, GuestError, HostError, UsageError
from firkin.host.lock import locked
from firkin.host.memory import total_mib
from firkin.manager import templates
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.machines import Lifetime
from firkin.store.snapshots import SnapshotRecord

if TYPE_CHECKING:
    from firkin.manager.firkin import Firkin

UNUSABLE = (HostError, EngineError, GuestError)  # but not a request that a boot would not meet either


def order(firkin: Firkin, spec: MachineSpec) -> Order:
    """All that a spec needs, found or made.

    Raises:
        InvalidSpec, NotFound, UsageError: the request cannot be met; nothing was touched.
        HostError: kernel or image cannot be made.
    """
    spec.check(host_memory_mib=total_mib())
    engine, kernel, image = firkin.engine(), firkin.kernel(spec.kernel), firkin.image(spec.image)
    refuse_command_under_init(spec, image)
    return Order(firkin.context, spec, engine=engine, kernel=kernel, image=image)


def refuse_command_under_init(spec: MachineSpec, image: Image) -> None:
    """An image with its own init has no entrypoint to replace."""
    if spec.command and image.config.init is not None:
        raise UsageError(
            f"image {image.reference!r} runs its own init and cannot run a command in its place",
            hint="start it with -d, then: firkin exec NAME -- COMMAND",
        )


@dataclass(frozen=True, slots=True)
class Order:
    """One machine to be, with all that was looked up for it."""

    context: Context
    spec: MachineSpec
    _: KW_ONLY
    engine: str
    kernel: Kernel
    image: Image

    def carry_out(self, lifetime: Lifetime, *, outlives: bool) -> Machine:
        """The machine, by the shortest way; its agent answers. On any failure everything is undone.

        Raises:
            NameTaken: nothing was touched.
            HostError, EngineError, GuestError: a step failed.
        """
        if self.context.settings.cold or not templates.serves(self.spec):
            return self._boot(lifetime, outlives=outlives)
        template = templates.find(self.context, self._key)
        machine = self._fork(template, lifetime, outlives=outlives) if template else None
        return machine or self._boot_first(lifetime, outlives=outlives)

    def template(self) -> SnapshotRecord:
        """The template of this kind; where there is none a machine boots for it.

        Raises:
            HostError, EngineError, GuestError: it did not come about.
        """
        if template := templates.find(self.context, self._key):
            return template
        from firkin.manager import template_keeping

        with locked(template_keeping.lock_path(self.context, self._key)):
            if template := templates.find(self.context, self._key):
                return template
            with self._boot(Lifetime.SESSION) as machine:
                if self._goes_on_booting:
                    template_keeping.settle(machine)
                return template_keeping.make(self.context, machine, self._key)

    @property
    def _goes_on_booting(self) -> bool:
        """An image's own init does, long after the agent answers."""
        return self.image.config.init is not None

    @property
    def _key(self) -> str:
        return templates.key(self.spec, self.engine, self.kernel, self.image)

    def _boot(self, lifetime: Lifetime, *, outlives: bool = False) -> Machine:
        from firkin.manager import launch, networks, start  # a fork needs less

        boot = launch.Launch(
            context=self.context,
            record=launch.new_record(self.spec, lifetime, self.engine, self.spec.network),
            network=networks.plan(self.context, self.spec.network),
            kernel=self.kernel,
            image=self.image,
        )
        return start.carry_out(boot, launch.BOOT, outlives=outlives)

    def _boot_first(self, lifetime: Lifetime, *, outlives: bool) -> Machine:
        """The first of its kind leaves a template, or has one made that is worth more than it would be now."""
        from firkin.manager import template_keeping

        machine = self._boot(lifetime, outlives=outlives)
        try:
            if self._goes_on_booting:
                template_keeping.have_made(self.context, self.spec, self._key)
            else:
                template_keeping.leave(self.context, machine, self._key)
        except BaseException:  # Ctrl-C: nobody gets to know of the machine
            machine.remove(force=True)
            raise
        return machine

    def _fork(self, template: SnapshotRecord, lifetime: Lifetime, *, outlives: bool) -> Machine | None:
        """None if no machine comes of it: the template is dropped then."""
        from firkin.manager.fork import fork

        name = self.spec.name
        try:
            return fork(self.context, template, name=name, spec=self.spec, lifetime=lifetime, outlives=outlives)
        except UNUSABLE as error:
            from firkin.manager import template_keeping

            template_keeping.drop(self.context, template, error)
            return None
