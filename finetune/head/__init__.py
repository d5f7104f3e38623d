"""The classifier head on frozen features: probe, cross-fitting, calibration."""
