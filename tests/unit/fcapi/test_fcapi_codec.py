from __future__ import annotations

import pytest

from firkin.fcapi import codec
from firkin.fcapi.routes import ROUTES
from firkin.fcapi.vsock import Vsock


def test_what_is_absent_stays_absent() -> None:
    assert codec.encode(Vsock(guest_cid=3, uds_path="v")) == b'{"guest_cid":3,"uds_path":"v"}'


def test_every_body_and_reply_can_be_decoded() -> None:
    for route in ROUTES:
        for kind in filter(None, (route.body, route.reply)):
            with pytest.raises(codec.Malformed):
                codec.decode(b"[", kind)
