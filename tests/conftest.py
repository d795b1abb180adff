"""Property tests here are bounded by examples, not by the clock: the machine may be busy with other work."""

from hypothesis import settings

settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")
