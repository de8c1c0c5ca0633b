"""Scaling laws: sizes by one rule, studies of many trainings, fits, forecasts.

See docs/scaling.md.
"""
