"""What is wrong with a set of photos, before a minute is spent on training."""
