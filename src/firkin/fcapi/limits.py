"""Rate limiters: token buckets for bytes and for operations, shared by drives, interfaces and more."""

from __future__ import annotations

import msgspec


class TokenBucket(msgspec.Struct, frozen=True, kw_only=True):
    """`size` tokens (bytes or operations) per `refill_time` milliseconds; unknown fields are ignored, as upstream."""

    size: int
    one_time_burst: int | None = None
    refill_time: int


class RateLimiter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both buckets apply together; an absent one does not limit."""

    bandwidth: TokenBucket | None = None
    ops: TokenBucket | None = None
