"""The data store: one JSON document with a size limit, looked up by path. No I/O."""

from __future__ import annotations

from typing import Any

from firkin.engine.faults import MMDS_NOT_INITIALIZED, MMDS_TOO_LARGE, Area, Fault, TooLarge
from firkin.engine.mmds import document


class UnsupportedType(LookupError):
    """As text only objects and strings can be shown."""


class Store:
    """The document. Until the first `put` it is null, which no patch applies to.

    A change replaces the document as a whole: a guest served by another thread sees it before or after, never between.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data: Any = None
        self._initialized = False

    def put(self, data: Any) -> None:
        """Replace everything. Raises: TooLarge."""
        self._data = self._fitting(data)
        self._initialized = True

    def patch(self, patch: Any) -> None:
        """Apply a merge patch, all or nothing. Raises: Fault, before any `put`; TooLarge."""
        if not self._initialized:
            raise Fault(MMDS_NOT_INITIALIZED, Area.MMDS)
        self._data = self._fitting(document.merged(self._data, patch))

    def describe(self) -> bytes:
        """The whole document as JSON; null is shown as an empty object."""
        return b"{}" if self._data is None else document.render(self._data)

    def json(self, path: str) -> bytes:
        """What is at `path`, as JSON. Raises: NotFound."""
        return document.render(self._at(path))

    def text(self, path: str) -> bytes:
        """What is at `path`, as EC2's metadata service shows it: a string, or the keys of an object a line each.

        Raises:
            NotFound: nothing is there.
            UnsupportedType: it is neither.
        """
        value = self._at(path)
        if isinstance(value, str):
            return value.encode()
        if not isinstance(value, dict):
            raise UnsupportedType(path)
        lines = (key + "/" if isinstance(value[key], dict) else key for key in sorted(value))
        return "\n".join(lines).encode()

    def _at(self, path: str) -> Any:
        return document.point(self._data, path.removesuffix("/"))

    def _fitting(self, data: Any) -> Any:
        if len(document.render(data)) > self._limit:
            raise TooLarge(MMDS_TOO_LARGE, Area.MMDS_LIMIT)
        return data
