"""APT's source lists as data, so that an image comes from the mirrors that its host uses. Pure but for `read_host`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

DEBIAN_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
COMPONENT = "main"
# What belongs to a release; vendors name their suites otherwise (`bookworm-pgdg`, `nodistro`).
POCKETS = ("", "-updates", "-security")
# A `mirror+file:` or `cdrom:` of the host means nothing inside the image.
REMOTE_SCHEMES = ("http://", "https://")


@dataclass(frozen=True, slots=True)
class Source:
    """One archive and suite with its components."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def line(self) -> str:
        """As /etc/apt/sources.list has it."""
        return f"deb [signed-by={DEBIAN_KEYRING}] {self.uri} {self.suite} {COMPONENT}"


def fallback(suite: str) -> tuple[Source, ...]:
    """Debian's own mirrors, for a host that has none of this suite."""
    main = (COMPONENT,)
    return (
        Source("http://deb.debian.org/debian", suite, main),
        Source("http://deb.debian.org/debian", f"{suite}-updates", main),
        Source("http://deb.debian.org/debian-security", f"{suite}-security", main),
    )


def for_suite(sources: Iterable[Source], suite: str) -> tuple[Source, ...]:
    """Those that are Debian's own for `suite`; `fallback` when the suite itself is not among them."""
    wanted = {suite + pocket for pocket in POCKETS}
    fitting = tuple(
        dict.fromkeys(
            Source(source.uri.rstrip("/"), source.suite, (COMPONENT,))
            for source in sources
            if source.suite in wanted and COMPONENT in source.components and source.uri.startswith(REMOTE_SCHEMES)
        )
    )
    return fitting if any(source.suite == suite for source in fitting) else fallback(suite)


def parse_one_line(text: str) -> Iterator[Source]:
    """The old format: `deb [options] uri suite component...`."""
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if not words or words[0] != "deb":
            continue
        rest = words[1:]
        if rest and rest[0].startswith("["):
            end = next((at for at, word in enumerate(rest) if word.endswith("]")), len(rest))
            rest = rest[end + 1 :]
        if len(rest) >= 3:
            yield Source(rest[0], rest[1], tuple(rest[2:]))


def parse_deb822(text: str) -> Iterator[Source]:
    """The new format: stanzas of `Key: values`, where each URI goes with each suite."""
    for stanza in _stanzas(text):
        if "deb" not in stanza.get("types", ()) or stanza.get("enabled", ["yes"]) == ["no"]:
            continue
        for uri in stanza.get("uris", ()):
            for suite in stanza.get("suites", ()):
                yield Source(uri, suite, tuple(stanza.get("components", ())))


def _stanzas(text: str) -> Iterator[dict[str, list[str]]]:
    stanza: dict[str, list[str]] = {}
    key = ""
    for line in (*text.splitlines(), ""):
        if line.startswith("#"):
            continue
        if not line.strip():
            if stanza:
                yield stanza
            stanza, key = {}, ""
        elif line[0].isspace():
            stanza.setdefault(key, []).extend(line.split())
        else:
            key, _, value = line.partition(":")
            key = key.strip().lower()
            stanza[key] = value.split()


def read_host(apt: Path = Path("/etc/apt")) -> list[Source]:
    """All that this host's APT reads; nothing on a host without APT."""
    found: list[Source] = []
    for path in (apt / "sources.list", *sorted((apt / "sources.list.d").glob("*"))):
        parse = {".list": parse_one_line, ".sources": parse_deb822}.get(path.suffix)
        if parse is not None and path.is_file():
            found += parse(path.read_text(errors="replace"))
    return found
