"""SAM Audio in JAX: separate any sound, told by text, time spans or a masked object in a video."""
