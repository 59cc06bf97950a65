"""Metrics computed from arrays: accuracy, calibration, geometry of features."""
