"""Slow, obvious twins of what the house does fast."""
