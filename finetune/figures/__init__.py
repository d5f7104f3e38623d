"""The pictures of a run: training curves, confusion, calibration, mistakes."""
