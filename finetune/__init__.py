"""The training run: settings, features, head, training loop, calibration, metrics.

Start reading in job.py: `train` calls every stage in order.
"""
