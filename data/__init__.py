"""Photo folders: found, audited, split without leaks, read once into batches.

The files read in this order: folder, reading, audit, split, batches. This room knows
nothing of networks; it imports `edge` only.
"""
