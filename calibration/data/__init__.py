"""Calibration data: files, columns, blends, rendering and reports."""
