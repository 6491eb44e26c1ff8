"""Settings of every test: hypothesis draws the same examples each time and has no deadline on a busy machine."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("vlmdsl", deadline=None, derandomize=True, database=None)
settings.load_profile("vlmdsl")
