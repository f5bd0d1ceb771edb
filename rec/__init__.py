"""The core of the ranking system: spec, request, session tables, tasks, models, training."""
