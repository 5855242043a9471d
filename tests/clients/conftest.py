"""A slow example is no failure: how long one takes depends on what else the machine does."""

from hypothesis import settings

settings.register_profile("octave", deadline=None)
settings.load_profile("octave")
