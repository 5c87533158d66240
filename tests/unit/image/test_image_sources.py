"""APT's source lists → the mirrors an image comes from."""

from __future__ import annotations

from pathlib import Path

from firkin.image.sources import Source, fallback, for_suite, parse_deb822, parse_one_line, read_host

MAIN = ("main",)


def test_one_line_entries_are_read_with_and_without_options() -> None:
    text = """
# deb http://old.example/debian bookworm main
deb http://mirror.example/debian bookworm main contrib # ours
deb [ arch=amd64 signed-by=/k.gpg ] http://mirror.example/security bookworm-security main
deb-src http://mirror.example/debian bookworm main
deb broken
deb [never closed
"""
    assert list(parse_one_line(text)) == [
        Source("http://mirror.example/debian", "bookworm", ("main", "contrib")),
        Source("http://mirror.example/security", "bookworm-security", MAIN),
    ]


def test_stanzas_give_each_uri_with_each_suite() -> None:
    text = """Types: deb
# a comment inside
URIs: http://a.example/debian
  http://b.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
Enabled: no
URIs: http://off.example
Suites: bookworm
Components: main

Types: deb-src
URIs: http://src.example
Suites: bookworm
Components: main
"""
    found = list(parse_deb822(text))
    assert [(source.uri[7], source.suite) for source in found] == [
        ("a", "bookworm"), ("a", "bookworm-updates"), ("b", "bookworm"), ("b", "bookworm-updates"),
    ]  # fmt: skip


def test_vendors_and_other_components_are_left_out() -> None:
    vendors = [
        Source("https://deb.vendor.example/node", "nodistro", MAIN),
        Source("https://download.vendor.example/linux", "bookworm", ("stable",)),
        Source("https://vendor.example/pg", "bookworm-pgdg", MAIN),
    ]
    ours = Source("http://mirror.example/debian/", "bookworm", ("main", "non-free"))
    assert for_suite([*vendors, ours, ours], "bookworm") == (Source("http://mirror.example/debian", "bookworm", MAIN),)


def test_a_host_of_another_release_gets_debians_own_mirrors() -> None:
    assert for_suite([Source("http://mirror.example/debian", "trixie", MAIN)], "bookworm") == fallback("bookworm")
    assert for_suite([Source("mirror+file:///etc/apt/m.list", "bookworm", MAIN)], "bookworm") == fallback("bookworm")


def test_both_formats_are_read_from_the_host_and_other_files_ignored(tmp_path: Path) -> None:
    lists = tmp_path / "sources.list.d"
    lists.mkdir()
    (tmp_path / "sources.list").write_text("deb http://one.example bookworm main\n")
    (lists / "two.sources").write_text("Types: deb\nURIs: http://two.example\nSuites: bookworm\nComponents: main\n")
    (lists / "three.list.save").write_text("deb http://three.example bookworm main\n")
    assert [source.uri for source in read_host(tmp_path)] == ["http://one.example", "http://two.example"]
    assert read_host(tmp_path / "none") == []
