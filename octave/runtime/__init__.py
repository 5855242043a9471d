"""What is alive: child processes, conversations with them, and who looks after them."""
