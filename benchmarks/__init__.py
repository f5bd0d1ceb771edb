"""Measurements, run from a checkout: speed and quality. Not part of the installed package."""

from pathlib import Path

CHECKOUT = Path(__file__).parents[1]  # specs, data and pages are read and written here
