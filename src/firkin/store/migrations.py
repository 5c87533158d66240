"""Ordered steps from an empty file to today's schema. A step that was released is never edited; add another."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE kernels (
            name TEXT PRIMARY KEY,
            provider TEXT NOT NULL,
            version TEXT NOT NULL,
            source TEXT NOT NULL,
            digest TEXT NOT NULL,
            modules_digest TEXT,
            size_bytes INTEGER NOT NULL,
            created_at REAL NOT NULL
        ) STRICT""",
        """CREATE TABLE images (
            name TEXT NOT NULL,
            tag TEXT NOT NULL,
            digest TEXT NOT NULL,
            filesystem TEXT NOT NULL,
            config TEXT NOT NULL,
            size_bytes INTEGER NOT NULL,
            created_at REAL NOT NULL,
            PRIMARY KEY (name, tag)
        ) STRICT""",
        """CREATE TABLE machines (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            state TEXT NOT NULL,
            spec TEXT NOT NULL,
            lifetime TEXT NOT NULL,
            engine TEXT NOT NULL,
            network TEXT,
            address TEXT,
            pid INTEGER,
            pid_started INTEGER,
            timeline TEXT NOT NULL,
            created_at REAL NOT NULL,
            started_at REAL,
            stopped_at REAL
        ) STRICT""",
        # A lease ends with its machine; a slot is a machine's number within its network.
        """CREATE TABLE leases (
            network TEXT NOT NULL,
            slot INTEGER NOT NULL,
            machine_id TEXT NOT NULL REFERENCES machines (id) ON DELETE CASCADE,
            PRIMARY KEY (network, slot)
        ) STRICT""",
        # The journal: what was done to the host and not yet undone, written before the act.
        """CREATE TABLE changes (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            owner TEXT NOT NULL,
            value TEXT NOT NULL
        ) STRICT""",
        "CREATE INDEX changes_by_owner ON changes (owner, id)",
    ),
    (
        # A snapshot's files lie in a folder of its id. `parent` is the snapshot that it is a difference from: the two
        # make one machine. `origin` is the one that its machine was forked from, for people to see the family.
        """CREATE TABLE snapshots (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            machine TEXT NOT NULL,
            spec TEXT NOT NULL,
            engine TEXT NOT NULL,
            kernel_digest TEXT NOT NULL,
            image_digest TEXT NOT NULL,
            mac TEXT NOT NULL,
            sshd INTEGER NOT NULL,
            parent TEXT REFERENCES snapshots (id),
            origin TEXT,
            template TEXT UNIQUE,
            digests TEXT NOT NULL,
            created_at REAL NOT NULL,
            used_at REAL NOT NULL
        ) STRICT""",
        "ALTER TABLE machines ADD COLUMN snapshot TEXT",
    ),
    (
        # `pool` of a machine: whose member it is, until somebody claims it.
        """CREATE TABLE pools (
            id TEXT PRIMARY KEY,
            name TEXT NOT NULL UNIQUE,
            size INTEGER NOT NULL,
            snapshot TEXT NOT NULL REFERENCES snapshots (id),
            network TEXT NOT NULL,
            created_at REAL NOT NULL
        ) STRICT""",
        "ALTER TABLE machines ADD COLUMN pool TEXT",
        "CREATE INDEX machines_by_pool ON machines (pool) WHERE pool IS NOT NULL",
    ),
)
