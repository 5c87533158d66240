"""Every kind of change that firkin makes to a host, as data: journaled, done, and later undone from its own text.

`do` and `undo` are idempotent. An undo works from the journal alone, after the process that did it was killed at any
point: before, within or after `do`.
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from pathlib import Path

import msgspec

from firkin.errors import EngineError
from firkin.net import links
from firkin.net.forwarding import SysctlChange
from firkin.net.plan import LinkPlan, NetworkPlan, decode_address, encode_address
from firkin.store.journal import Journal
from firkin.vmm import console as consoles
from firkin.vmm import process as vmm_process
from firkin.vmm.boot import API_SOCKET


class Change(msgspec.Struct, frozen=True, tag_field="kind"):
    """One undoable change."""

    def do(self) -> None: ...

    def undo(self) -> None: ...


class Folder(Change, frozen=True, tag="folder"):
    """A folder of our own and all that will be in it; private, since boot files hold keys."""

    path: str

    def do(self) -> None:
        Path(self.path).mkdir(parents=True, exist_ok=True, mode=0o700)

    def undo(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


class NetworkUp(Change, frozen=True, tag="network"):
    """A namespace, its bridge and its firewall."""

    plan: NetworkPlan

    def do(self) -> None:
        links.create_network(self.plan)

    def undo(self) -> None:
        links.delete_network(self.plan)


class SysctlSet(Change, frozen=True, tag="sysctl"):
    """A kernel setting; its former value was read before the change was written down."""

    change: SysctlChange

    def do(self) -> None:
        self.change.apply()

    def undo(self) -> None:
        self.change.restore()


class LinkUp(Change, frozen=True, tag="link"):
    """A tap on a network's bridge."""

    plan: LinkPlan

    def do(self) -> None:
        links.create_link(self.plan, owner_uid=os.geteuid())

    def undo(self) -> None:
        links.delete_link(self.plan)


class EngineUp(Change, frozen=True, tag="engine"):
    """A VMM process, found by its `--id` since no pid can be written before it exists. The launcher spawns it."""

    machine_id: str

    def undo(self) -> None:
        vmm_process.end(self.machine_id)


class KeeperUp(Change, frozen=True, tag="keeper"):
    """The console's keeper of an engine. Written before the engine, since it is gone only after that."""

    machine_id: str
    run: str

    def undo(self) -> None:
        consoles.end(self.machine_id, Path(self.run))


class Frozen(Change, frozen=True, tag="frozen"):
    """A guest that may stand still though the store says that it runs. `pausing.thaw` lets it go on; with its engine
    nothing of it is left."""


class Saving(Change, frozen=True, tag="saving"):
    """Files that an engine writes for somebody who may be gone. It answers one request after another, so once it has
    answered ours it writes no more."""

    run: str

    def undo(self) -> None:
        from firkin.vmm.client import ApiClient

        with suppress(EngineError, OSError), ApiClient(Path(self.run) / API_SOCKET) as api:
            api.info()


AnyChange = Saving | Frozen | Folder | NetworkUp | SysctlSet | LinkUp | EngineUp | KeeperUp


class Ledger:
    """Does changes on behalf of an owner and takes them back, newest first."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def do(self, owner: str, change: AnyChange) -> None:
        """Write the change down, then do it."""
        self._journal.write(owner, msgspec.json.encode(change, enc_hook=encode_address).decode())
        change.do()

    def undo_all(self, owner: str) -> None:
        """Take back everything of this owner. What fails stays in the journal, for the next try."""
        for entry in self._journal.newest_first(owner):
            change: AnyChange = msgspec.json.decode(entry.value, type=AnyChange, dec_hook=decode_address)
            change.undo()
            self._journal.strike(entry.number)

    def drop(self, owner: str, kind: type[Change]) -> None:
        """Changes of this kind are over: there is nothing to undo any more."""
        self._journal.strike_kind(owner, str(kind.__struct_config__.tag))

    def keep_all(self, owner: str) -> None:
        """Let everything of this owner stand: it has become what was wanted."""
        for entry in self._journal.newest_first(owner):
            self._journal.strike(entry.number)

    def owners(self) -> list[str]:
        return self._journal.owners()

    def holds(self, owner: str) -> bool:
        return bool(self._journal.newest_first(owner))
