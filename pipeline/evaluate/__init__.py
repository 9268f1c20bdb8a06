"""Scores and times engines, and judges them: baseline, evaluation, measurement, gate, search."""
