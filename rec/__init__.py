"""The vocabulary of a ranking system: spec, request, session table, tasks, models, training."""
