"""The training loop: examples, one step, checkpoints, what is kept, folds."""
