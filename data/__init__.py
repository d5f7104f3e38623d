"""Photo folders: found, audited, split without leaks, read once into batches.

The files read in this order: folder (with manifest and archive), look, reading, alike,
checks, copies, audit, report, split, batches; beside them memory, doubts, faults and
capture.
This room knows nothing of networks; it imports `edge` only.
"""
