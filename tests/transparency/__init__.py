"""The raw-JSON comparison: what a client and a server see of each other, directly and through."""
