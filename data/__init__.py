"""Photo folders: found, audited, split without leaks, read once into batches.

The files read in this order: photos, folders, manifest, archive, source; batches,
audit/, split; beside them store, augment, capture and sample/. This room imports `edge`
only.
"""
