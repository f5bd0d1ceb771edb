"""What a look at logs suggests for a spec: which column is what, and what could be predicted."""
