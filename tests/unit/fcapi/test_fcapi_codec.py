from __future__ import annotations

import pytest

from firkin.fcapi import codec
from firkin.fcapi.machine import MachineConfiguration
from firkin.fcapi.routes import ROUTES
from firkin.fcapi.vsock import Vsock


def test_a_missing_field_is_noticed_at_the_closing_brace() -> None:
    with pytest.raises(codec.Malformed, match=r"^missing field `vcpu_count` at line 1 column 21$"):
        codec.decode(b'{"mem_size_mib": 128}', MachineConfiguration)


def test_an_unknown_field_is_noticed_after_its_name() -> None:
    with pytest.raises(
        codec.Malformed, match=r"^unknown field `x`, expected one of `guest_cid`, .* at line 1 column 4$"
    ):
        codec.decode(b'{"x": 1}', Vsock)


def test_what_is_absent_stays_absent() -> None:
    assert codec.encode(Vsock(guest_cid=3, uds_path="v")) == b'{"guest_cid":3,"uds_path":"v"}'


def test_every_body_and_reply_can_be_decoded() -> None:
    for route in ROUTES:
        for kind in filter(None, (route.body, route.reply)):
            with pytest.raises(codec.Malformed):
                codec.decode(b"[", kind)
