"""Pseudo-labels: recordings separated by a checkpoint, with scores to choose among the results.

1. `label_inputs.py` reads the manifest; what has no caption may get one by `tagging.py`.
2. `prompt_kinds.py` makes the prompts of an input: the stated kind, and another to compare with.
3. `group_labels.py` separates the recordings of a group, also as the scores need it: from another
   noise, by another prompt, for an absent sound, the residual, and remixed.
4. `label_measures.py` compares waves; `network_scores.py` has the scores of networks.
5. `labelling.py` runs all inputs in shards (`data/labels.py`), shared by processes, resumable.
6. `label_page.py` writes the report.
"""
