"""How a message crosses: names, lists, routes, and the conversation with one client."""
