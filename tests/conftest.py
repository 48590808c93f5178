"""What every test shares: how hard Hypothesis tries."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before torch is loaded: idle OpenMP threads sleep instead of taking the processor from the others.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# No deadline: a busy machine is no fault of the code. A failing example is printed so that it can be replayed elsewhere.
settings.register_profile("house", deadline=None, max_examples=60, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")
