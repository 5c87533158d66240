"""Which Firecracker this API is. Apart from the types, so that printing it costs no import of theirs."""

from __future__ import annotations

APP_NAME = "Firecracker"
VERSION = "1.16.1"
