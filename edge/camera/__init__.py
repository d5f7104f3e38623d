"""Frames to answers: sources, which frames, output, the verb `camera`."""
