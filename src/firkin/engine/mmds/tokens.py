"""Session tokens that carry their own end of life, so that no number of them costs memory.

A token is a nonce, the encrypted time of its end and a keyed hash over both and the microVM's id: of the size of
Firecracker's. The key lives in this process only, so a restored microVM knows no token of before.
"""

from __future__ import annotations

import binascii
import os
from collections.abc import Callable

MIN_TTL_S, MAX_TTL_S = 1, 21600
_NONCE_SIZE, _END_SIZE, _TAG_SIZE = 12, 8, 16
_SIZE = _NONCE_SIZE + _END_SIZE + _TAG_SIZE
_ENCODED_SIZE = 48


class BadTtl(ValueError):
    """Not a time to live that a token may have."""


class TokenAuthority:
    """Makes tokens and knows its own again."""

    def __init__(self, instance_id: str, clock_s: Callable[[], float]) -> None:
        self._context = f"microvmid={instance_id}".encode()
        self._clock_s = clock_s
        self._key = os.urandom(32)

    def issue(self, ttl_s: int) -> bytes:
        """A token valid for so long. Raises: BadTtl."""
        if not MIN_TTL_S <= ttl_s <= MAX_TTL_S:
            raise BadTtl(ttl_s)
        nonce = os.urandom(_NONCE_SIZE)
        end = (self._now_ms() + ttl_s * 1000).to_bytes(_END_SIZE, "big")
        sealed = nonce + self._masked(nonce, end)
        return binascii.b2a_base64(sealed + self._tag(sealed), newline=False)

    def is_valid(self, token: str) -> bool:
        """Whether we issued it and it has not ended."""
        from hmac import compare_digest

        if len(token) != _ENCODED_SIZE:
            return False
        try:
            raw = binascii.a2b_base64(token, strict_mode=True)
        except ValueError:
            return False
        sealed, tag = raw[:-_TAG_SIZE], raw[-_TAG_SIZE:]
        if len(raw) != _SIZE or not compare_digest(tag, self._tag(sealed)):
            return False
        end = self._masked(sealed[:_NONCE_SIZE], sealed[_NONCE_SIZE:])
        return int.from_bytes(end, "big") > self._now_ms()

    def _now_ms(self) -> int:
        return int(self._clock_s() * 1000)

    def _masked(self, nonce: bytes, end: bytes) -> bytes:
        """Encrypt and decrypt: a guest must not learn the host's clock."""
        mask = self._hash(b"mask", nonce, _END_SIZE)
        return bytes(a ^ b for a, b in zip(end, mask, strict=True))

    def _tag(self, sealed: bytes) -> bytes:
        return self._hash(b"tag", self._context + sealed, _TAG_SIZE)

    def _hash(self, purpose: bytes, data: bytes, size: int) -> bytes:
        from hashlib import blake2b  # the first token pays for it, not every start

        return blake2b(data, key=self._key, person=purpose, digest_size=size).digest()
