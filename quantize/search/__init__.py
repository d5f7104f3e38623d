"""The search for the best network under a budget."""
