"""What every model keeps, whoever wrote it: the laws, small specs drawn to try them on, and `multigate check-model`."""
