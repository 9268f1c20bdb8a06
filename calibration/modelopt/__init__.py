"""Calibration by ModelOpt itself: the reference."""
