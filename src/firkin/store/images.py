"""Images we have: `name:tag` → an immutable root filesystem and how to run it."""

from __future__ import annotations

import time

import msgspec

from firkin.store.db import Database


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """How an image wants to be run, in OCI's words where OCI has one."""

    init: str | None = None  # the image's own PID 1; None: firkin-init stays and runs the entrypoint
    entrypoint: tuple[str, ...] = ("/bin/sh", "-l")
    env: tuple[str, ...] = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",)
    working_dir: str = "/root"
    user: str = "root"
    sshd: bool = False  # an SSH server starts with the image


class Image(msgspec.Struct, frozen=True, kw_only=True):
    """One row; `digest` is the sha256 of the filesystem's file."""

    name: str
    tag: str
    digest: str
    filesystem: str  # squashfs, erofs or ext4: what the guest mounts it as
    config: ImageConfig
    size_bytes: int
    created_at: float = msgspec.field(default_factory=time.time)

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"


class Images:
    """The `images` table."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def put(self, image: Image) -> None:
        """Remember an image; one of the same name and tag is replaced."""
        row = msgspec.structs.asdict(image) | {"config": msgspec.json.encode(image.config).decode()}
        names, marks = ", ".join(row), ", ".join(f":{key}" for key in row)
        self._db.connection.execute(f"INSERT OR REPLACE INTO images ({names}) VALUES ({marks})", row)

    def get(self, name: str, tag: str = "latest") -> Image | None:
        row = self._db.connection.execute("SELECT * FROM images WHERE (name, tag) = (?, ?)", (name, tag)).fetchone()
        return _image(row) if row else None

    def of_digest(self, digest: str) -> Image | None:
        """One whose file this is, whatever it is called today."""
        row = self._db.connection.execute("SELECT * FROM images WHERE digest = ?", (digest,)).fetchone()
        return _image(row) if row else None

    def all(self) -> list[Image]:
        return [_image(row) for row in self._db.connection.execute("SELECT * FROM images ORDER BY name, tag")]

    def remove(self, name: str, tag: str) -> None:
        self._db.connection.execute("DELETE FROM images WHERE (name, tag) = (?, ?)", (name, tag))


def _image(row: object) -> Image:
    values = dict(row)  # type: ignore[call-overload]
    return Image(**values | {"config": msgspec.json.decode(values["config"], type=ImageConfig)})
