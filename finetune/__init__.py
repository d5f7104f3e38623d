"""The training run: features, probe, fine-tuning, calibration, figures.

Read it in this order: settings, run, features, probe, train, calibrate, report, job.
"""
