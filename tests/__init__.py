"""Tests mirror the packages; what belongs to no package stands here."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
