"""Measurements: both sides in one run, medians, written beside this file."""
