"""AI tools: where each keeps its configuration and how Octave's entry gets in and out."""
