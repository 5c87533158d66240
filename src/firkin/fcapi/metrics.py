"""/metrics: where the VMM's counters go."""

from __future__ import annotations

import msgspec

from firkin.fcapi.wire import PathText


class MetricsConfig(msgspec.Struct, frozen=True, kw_only=True):
    """PUT /metrics, once. Unknown fields are ignored, as upstream."""

    metrics_path: PathText
