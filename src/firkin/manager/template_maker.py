"""The process that makes the template of an image with an init of its own: it boots a machine for it, out of the way.

Such a machine goes on booting long after its agent answers, and the first one is in its user's hands by then. This one
takes what processor time others leave, ends when it is saved, and ends with this process.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace

import msgspec

from firkin.errors import FirkinError, HostError
from firkin.host.memory import available_mib
from firkin.manager import background, running
from firkin.manager.firkin import Firkin
from firkin.spec import MachineSpec

LAST = 19  # of nice(1)


def main() -> None:
    os.nice(LAST)
    spec = msgspec.json.decode(sys.argv[1], type=MachineSpec)
    # An engine that a zygote forks would not be as nice as we are.
    settings = replace(background.settings(), zygote=0)
    try:
        if (there := available_mib()) < 2 * spec.memory_mib:
            raise HostError(f"no template is made: {there} MiB of memory are left", hint="free -m")
        with Firkin(settings) as firkin:
            running.order(firkin, spec).template()
    except FirkinError as error:
        sys.exit(background.last_words(error))


if __name__ == "__main__":
    main()
