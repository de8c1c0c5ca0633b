"""A training planned without TPU hardware: compiled, counted, estimated, searched."""
