"""SAM Audio-Bench as it was released (docs/benchmark.md): its table, clips, settings, presets.

The table is a data set of Hugging Face (`facebook/sam-audio-bench`); the recordings belong to their
authors, and each user brings them. Nothing here downloads anything.
"""
