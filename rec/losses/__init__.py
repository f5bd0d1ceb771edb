"""Losses: of the task graph, of regression tasks, and with inverse propensities."""
