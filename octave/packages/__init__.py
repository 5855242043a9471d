"""What is on disk: from a wish in octave.toml to a verified folder that can be started."""
