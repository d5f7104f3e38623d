"""Photo folders: found, audited, split without leaks, read once into batches.

The files read in this order: photos, scan, parts, manifest, archive, source; reading,
audit/, split, batches; beside them store, cache, augment, added, capture and sample/.
This room imports `edge` only.
"""
