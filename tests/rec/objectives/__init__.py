"""Tests of rec/objectives, one file per module."""
