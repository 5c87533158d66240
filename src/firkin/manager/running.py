"""`run`: a fork of the template of its kind where there is one, else a boot."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

from firkin.errors import EngineError, GuestError, HostError
from firkin.manager import templates
from firkin.manager.context import Context
from firkin.manager.machine import Machine
from firkin.spec import MachineSpec
from firkin.store.images import Image
from firkin.store.kernels import Kernel
from firkin.store.machines import Lifetime
from firkin.store.snapshots import SnapshotRecord

UNUSABLE = (HostError, EngineError, GuestError)  # but not a request that a boot would not meet either


@dataclass(frozen=True, slots=True)
class Order:
    """One machine to be, with all that was looked up for it."""

    context: Context
    spec: MachineSpec
    _: KW_ONLY
    engine: str
    kernel: Kernel
    image: Image
    lifetime: Lifetime = Lifetime.KEPT
    outlives: bool = False

    def carry_out(self) -> Machine:
        """The machine, by the shortest way; its agent answers. On any failure everything is undone.

        Raises:
            NameTaken: nothing was touched.
            HostError, EngineError, GuestError: a step failed.
        """
        if self.context.settings.cold or not templates.serves(self.spec):
            return self.boot()
        key = templates.key(self.spec, self.engine, self.kernel, self.image)
        template = templates.find(self.context, key)
        return (template and self._fork(template)) or self._boot_first(key)

    def boot(self) -> Machine:
        """The long way."""
        from firkin.manager import launch, networks, start

        boot = launch.Launch(
            context=self.context,
            record=launch.new_record(self.spec, self.lifetime, self.engine, self.spec.network),
            network=networks.plan(self.context, self.spec.network),
            kernel=self.kernel,
            image=self.image,
        )
        return start.carry_out(boot, launch.BOOT, outlives=self.outlives)

    def _boot_first(self, key: str) -> Machine:
        """The first of its kind leaves a template. An image's own init goes on booting long after the agent answers."""
        machine = self.boot()
        if self.image.config.init is None:
            from firkin.manager import template_keeping

            try:
                template_keeping.leave(self.context, machine, key)
            except BaseException:  # Ctrl-C: nobody gets to know of the machine
                machine.remove(force=True)
                raise
        return machine

    def _fork(self, template: SnapshotRecord) -> Machine | None:
        """None if no machine comes of it: the template is dropped then."""
        from firkin.manager.fork import fork

        name, lifetime, outlives = self.spec.name, self.lifetime, self.outlives
        try:
            return fork(self.context, template, name=name, spec=self.spec, lifetime=lifetime, outlives=outlives)
        except UNUSABLE as error:
            from firkin.manager import template_keeping

            template_keeping.drop(self.context, template, error)
            return None
