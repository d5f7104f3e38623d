"""The classifier head on frozen features: probe, cross-fitting, learning curve."""
