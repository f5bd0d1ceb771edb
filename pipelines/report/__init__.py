"""pipelines/report."""
