"""ssh's command line and config, as OpenSSH itself reads them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from firkin.cli.ssh import split
from firkin.errors import UsageError
from firkin.manager import ssh
from firkin.paths import Paths

ACCESS = ssh.Access(
    name="web",
    address=None,
    user_key=Path("/keys/id_ed25519"),
    known_hosts=Path("/m/known_hosts"),
    paths=Paths(Path("/var/lib/firkin"), Path("/run/firkin")),
)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("web", ("", "", "web", "")),
        ("bob@web ls -la /", ("", "bob", "web", "ls -la /")),
        ("-l bob web", ("-l bob", "", "web", "")),
        ("-vN -L 8080:localhost:80 web", ("-vN -L 8080:localhost:80", "", "web", "")),
        ("-p22 -vL 1:h:2 web uptime", ("-p22 -vL 1:h:2", "", "web", "uptime")),
        ("web -- -L 8080:localhost:80 uptime", ("-L 8080:localhost:80", "", "web", "uptime")),
        ("web -t -- sh -c x", ("-t", "", "web", "sh -c x")),
        ("web -- ls -l", ("", "", "web", "ls -l")),
    ],
)
def test_words_are_taken_as_ssh_takes_them(words: str, expected: tuple[str, str, str, str]) -> None:
    options, user, name, command = split(tuple(words.split()))
    assert (" ".join(options), user, name, " ".join(command)) == expected


@pytest.mark.parametrize("words", [(), ("-p",), ("-L", "1:h:2")])
def test_a_machine_must_be_named(words: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="no machine is named"):
        split(words)


def understood(*argv: str) -> dict[str, str]:
    """What ssh makes of it: `ssh -G` prints its configuration and connects nowhere."""
    done = subprocess.run(["ssh", "-G", *argv], capture_output=True, text=True, check=True)
    return dict(line.split(" ", 1) for line in done.stdout.splitlines() if " " in line)


@pytest.mark.parametrize("folder", ["/plain", "/with space/100% \"quoted\" 'twice' #1"])
def test_ssh_reads_both_forms_alike(folder: str, tmp_path: Path) -> None:
    home = Path(folder)
    access = replace(ACCESS, user_key=home / "key", known_hosts=home / "hosts", paths=Paths(home, home / "run"))
    config = tmp_path / "config"
    config.write_text(ssh.host_block(replace(access, name="other")) + "\n" + ssh.host_block(access))
    for argv in (("-F", str(config), "web"), ("-F", "none", *ssh.options(access), "web")):
        seen = understood(*argv)
        assert seen["identityfile"].replace("%%", "%") == str(home / "key")
        assert seen["userknownhostsfile"].replace("%%", "%") == str(home / "hosts")
        assert seen["user"] == "root"
        assert seen["stricthostkeychecking"] == "true"
        command = seen["proxycommand"].replace("%%", "%")
        words = subprocess.run(["sh", "-c", f"printf '%s\\n' {command}"], capture_output=True, text=True, check=True)
        assert words.stdout.splitlines()[:2] == ["env", f"FIRKIN_HOME={folder}"]
        assert words.stdout.splitlines()[-5:] == ["proxy", "--wait", "10", "web", "22"]


def test_a_route_is_taken_where_there_is_one() -> None:
    seen = understood("-F", "none", *ssh.options(replace(ACCESS, address="192.168.5.2")), "web")
    assert seen["hostname"] == "192.168.5.2"
    assert "proxycommand" not in seen


def test_what_a_user_says_wins() -> None:
    seen = understood("-F", "none", "-l", "bob", "-i", "/my/key", *ssh.options(ACCESS), "web")
    assert seen["user"] == "bob"


def test_the_default_home_needs_no_variable() -> None:
    assert ssh.firkin_argv(ACCESS.paths)[0].startswith(str(Path(sys.executable).parent))
