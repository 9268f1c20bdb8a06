"""Scales and rounding of every format; pure."""
