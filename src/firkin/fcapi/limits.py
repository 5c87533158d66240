"""Rate limiters: token buckets for bytes and for operations, shared by drives, interfaces and more."""

from __future__ import annotations

from typing import ClassVar

import msgspec

from firkin.fcapi.wire import U64


class TokenBucket(msgspec.Struct, frozen=True, kw_only=True):
    """`size` tokens (bytes or operations) per `refill_time` milliseconds; unknown fields are ignored, as upstream."""

    rust: ClassVar[str] = "TokenBucketConfig"

    size: U64
    one_time_burst: U64 | None = None
    refill_time: U64


class RateLimiter(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Both buckets apply together; an absent one does not limit."""

    rust: ClassVar[str] = "RateLimiterConfig"

    bandwidth: TokenBucket | None = None
    ops: TokenBucket | None = None
