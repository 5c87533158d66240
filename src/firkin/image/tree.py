"""What firkin changes in a fresh Debian tree, as data, and the shell script that mmdebstrap runs to change it. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType

# `root`, with a fixed salt: a random one would make every build differ.
ROOT_PASSWORD = "$6$firkin$Joyets/dHCuREZ5Y0Q/G8N.2j2QP7Vi6fxx0vf5Uz4b9LdzQIgvaALpj4E5/Dif.k6zRw7hcnJYa9hdLj1Ml3."

CONSOLE = """[Unit]
Description=Root shell on the serial console
After=systemd-user-sessions.service
ConditionPathExists=/dev/ttyS0
Conflicts=rescue.service

[Service]
Environment=TERM=vt220
ExecStart=-/sbin/agetty --autologin root --noclear --noissue --keep-baud 115200 ttyS0 $TERM
Restart=always
RestartSec=0
UtmpIdentifier=ttyS0
StandardInput=tty
StandardOutput=tty
TTYPath=/dev/ttyS0
TTYReset=yes
TTYVHangup=yes
IgnoreSIGPIPE=no
SendSIGHUP=yes
KillMode=process

[Install]
WantedBy=multi-user.target
"""

FILES: Mapping[str, str] = MappingProxyType(
    {
        # serial-getty@ttyS0 waits for a device unit, which only udev provides; this one just opens the device.
        "/etc/systemd/system/firkin-console.service": CONSOLE,
        "/etc/systemd/journald.conf.d/firkin.conf": (
            "[Journal]\nStorage=volatile\nRuntimeMaxUse=8M\nForwardToSyslog=no\nAudit=no\n"
        ),
        "/etc/systemd/system.conf.d/firkin.conf": (
            "[Manager]\nDefaultTimeoutStopSec=5s\nShowStatus=no\nLogLevel=notice\n"
        ),
        # The syntax check before the start costs as much as the start.
        "/etc/systemd/system/ssh.service.d/firkin.conf": "[Service]\nExecStartPre=\n",
        "/etc/ssh/sshd_config.d/firkin.conf": (
            "PermitRootLogin yes\nHostKey /etc/ssh/ssh_host_ed25519_key\nUseDNS no\nPrintMotd no\n"
        ),
        "/etc/hostname": "debian\n",
        "/etc/default/locale": "LANG=C.UTF-8\n",
        "/etc/hosts": "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n",
        "/etc/fstab": "",
        # Empty, not absent: systemd then makes a new one at each boot without the first-boot ceremony.
        "/etc/machine-id": "",
    }
)

MASKED_UNITS = (
    # Work on a clock, for machines that live long.
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "systemd-tmpfiles-clean.timer", "systemd-timesyncd.service",
    # Other consoles, and those of firkin's own unit.
    "getty@tty1.service", "getty-static.service", "serial-getty@ttyS0.service", "autovt@.service",
    # Things that the image or firkin-init settled already.
    "systemd-networkd.service", "systemd-networkd.socket", "systemd-network-generator.service", "networking.service",
    "systemd-remount-fs.service", "systemd-firstboot.service", "systemd-sysusers.service",
    "systemd-machine-id-commit.service", "ldconfig.service", "systemd-hwdb-update.service",
    "systemd-journal-catalog-update.service", "systemd-update-done.service", "systemd-random-seed.service",
    "systemd-boot-random-seed.service", "systemd-boot-system-token.service", "systemd-modules-load.service",
    "kmod-static-nodes.service", "modprobe@.service", "systemd-tmpfiles-setup-dev.service", "systemd-pcrphase.service",
    "systemd-pcrphase-initrd.service", "systemd-pcrphase-sysinit.service",
    "systemd-pcrmachine.service", "systemd-repart.service",
    # Nothing here needs them.
    "systemd-journal-flush.service", "systemd-update-utmp.service",
    "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service", "systemd-binfmt.service",
    "proc-sys-fs-binfmt_misc.automount", "systemd-pstore.service", "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path", "systemd-initctl.socket", "systemd-rfkill.socket", "remote-fs.target",
    "remote-cryptsetup.target", "remote-veritysetup.target",
    "systemd-journald-audit.socket",
    # Each of these mounts runs a program; what lacks them can mount by hand.
    "dev-hugepages.mount", "dev-mqueue.mount", "sys-kernel-config.mount", "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount", "sys-fs-fuse-connections.mount",
)  # fmt: skip

MASKED_GENERATORS = (
    "systemd-bless-boot-generator", "systemd-cryptsetup-generator", "systemd-debug-generator",
    "systemd-getty-generator",
    "systemd-gpt-auto-generator", "systemd-hibernate-resume-generator", "systemd-integritysetup-generator",
    "systemd-rc-local-generator", "systemd-run-generator", "systemd-system-update-generator",
    "systemd-veritysetup-generator",
)  # fmt: skip

# Started by whoever first needs them: a login over SSH, hostnamectl, timedatectl.
NOT_AT_BOOT = ("dbus.service", "systemd-logind.service")

# The console's own login is there from the boot on, and would have both start then.
CONSOLE_WITHOUT_SESSION = "session [success=1 default=ignore] pam_succeed_if.so quiet service = login"

# Keeps everybody but root out until a unit that is masked above lifts it.
MASKED_TMPFILES = ("systemd-nologin.conf",)

# Not /tmp/*: mmdebstrap keeps its apt.conf there, and without it cleans the package lists of the host instead.
REMOVED = (
    "/etc/ssh/ssh_host_*", "/var/lib/apt/lists/*", "/var/cache/apt/*.bin", "/var/cache/apt/archives/*.deb",
    "/var/cache/debconf/*-old", "/var/cache/ldconfig/*", "/var/lib/dpkg/*-old", "/var/log/*.log", "/var/log/apt/*",
    "/var/lib/systemd/random-seed", "/var/lib/dbus/machine-id", "/etc/resolv.conf", "/run/*",
    "/etc/apt/apt.conf.d/99mmdebstrap", "/usr/share/locale/*", "/usr/lib/udev/hwdb.*", "/usr/lib/systemd/catalog/*",
    "/var/lib/systemd/catalog", "/etc/.pwd.lock", "/etc/passwd-", "/etc/group-", "/etc/shadow-", "/etc/gshadow-",
    "/etc/update-motd.d/*", "/etc/motd",
)  # fmt: skip


def customize_script() -> str:
    """A shell script whose first argument is the tree's root."""
    return "\n".join(("set -eu", 'cd "$1"', *removals(), *files(FILES), *_masks(), *_settings()))


def removals() -> list[str]:
    """Lines that remove what only the installation needed; what is absent is fine."""
    return [f"rm -rf .{pattern}" for pattern in REMOVED]


def files(contents: Mapping[str, str]) -> list[str]:
    """Lines that write files; path → content."""
    lines = []
    for path, content in contents.items():
        folder = shlex.quote(f".{PurePosixPath(path).parent}")
        lines.append(f"mkdir -p {folder} && printf %s {shlex.quote(content)} > {shlex.quote('.' + path)}")
    return lines


def _masks() -> list[str]:
    folders = {
        "./etc/systemd/system": MASKED_UNITS,
        "./etc/systemd/system-generators": MASKED_GENERATORS,
        "./etc/systemd/system/multi-user.target.wants": NOT_AT_BOOT,
        "./etc/tmpfiles.d": MASKED_TMPFILES,
    }
    return [
        f"mkdir -p {folder} && for name in {' '.join(names)}; do ln -sf /dev/null {folder}/$name; done"
        for folder, names in folders.items()
    ]


def _settings() -> list[str]:
    wants = "./etc/systemd/system/multi-user.target.wants"
    return [
        f"mkdir -p {wants} ./root && ln -sf ../firkin-console.service {wants}/firkin-console.service",
        "ln -sf /lib/systemd/system/multi-user.target ./etc/systemd/system/default.target",
        f"sed -i {shlex.quote(f'/pam_systemd/i {CONSOLE_WITHOUT_SESSION}')} ./etc/pam.d/common-session",
        f"sed -i {shlex.quote(f's|^root:[^:]*:|root:{ROOT_PASSWORD}:|')} ./etc/shadow",
    ]
