"""Drafting a spec from log files: the role of each column, and tasks that could be predicted."""
