"""The installed command against real packages: nothing of Octave is imported here."""
