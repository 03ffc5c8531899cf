"""Accuracy, AUC and their intervals, thresholds, calibration and paired tests."""
