"""Numbers from arrays: accuracy, calibration, geometry of features."""
