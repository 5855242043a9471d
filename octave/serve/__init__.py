"""How a runtime is reached: unix socket and HTTP, and what one can ask of it."""
