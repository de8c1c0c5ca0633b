"""What a recipe would do on TPUs that are not there: compiled, counted, estimated, searched."""
