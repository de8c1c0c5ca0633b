"""Separation: from a recording and its prompts to two stems, target and residual.

`SAMAudio.separate` (separate.py) reads and checks the recording and its prompts (inputs.py,
video_prompts.py, options.py). The items of a call are grouped by length (buckets.py) and each group
is padded to arrays of one shape (collate.py); spans may be predicted (span_prediction.py). One
compiled program encodes, integrates and decodes a group (solve.py); a recording that is too long
for it is solved in windows (long_audio.py). Of several candidates the best is kept (rerank.py), and
the stems may divide the recording itself (refine.py, stems.py). output.py writes them to files.

Other ways in: processor.py makes the reference's batches, stream.py separates sound while it
arrives (stream_windows.py), batch/ separates the recordings of a manifest.
"""
