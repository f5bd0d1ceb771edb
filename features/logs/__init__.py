"""Logs: files of any supported form, read as typed rows."""
