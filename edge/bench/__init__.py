"""How fast a model file is on this machine, and what else decides that."""
