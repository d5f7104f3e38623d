"""The training loop: examples, one step, schedule, checkpoints, what is kept."""
