"""The partitioned build of session tables: partition, prepare, aggregate, assemble, finalize."""
