"""What holds for all tests."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A test machine may be busy with something else: how long an example takes says nothing about the code.
settings.register_profile("any-load", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any-load")
