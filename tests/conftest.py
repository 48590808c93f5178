"""What every test shares: how hard Hypothesis tries."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# No deadline: a busy machine is no fault of the code. A failing example is printed so that it can be replayed elsewhere.
settings.register_profile("house", deadline=None, max_examples=60, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
