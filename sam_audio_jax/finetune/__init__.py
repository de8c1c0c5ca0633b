"""Own recordings: looked at, set apart by recording, and trained on by the ordinary trainer."""
