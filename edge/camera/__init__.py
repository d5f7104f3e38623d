"""Frames to answers: sources, smoothing, output, the verb `camera`."""
