"""Offline metrics: classification, regression, ranking, calibration, gate health."""
