"""From recordings to batches: what happens to a training example of the separator.

1. `source.py` reads manifests (`manifest.jsonl`, `songs.jsonl`) into `Recording` and `Song`.
2. `waves.py` decodes every sound file once to a mono wave at the codec's rate.
3. `mix.py` draws a `Mixture` (`mixture.py`) of recordings from `catalogue.py`, by their captions
   and those near them (`likeness.py`), that `arrange.py` lays out in time and `equaliser.py`
   filters: the waves mixture, target and residual, the texts of the last two (`text.py`), and where
   their recordings lie, from which `video_tracks.py` lays out the features of their videos, which
   `tower_tracks.py` makes where a cache is made with a vision tower.
4. With a cache: `shards.py` stores the mixtures of step 3 as `Record`: latents, texts, activities
   and the features of videos and of the teacher.
5. `examples.py` reads a `Mixture`, or a crop of a `Record`, and writes the keys `mixture`,
   `target`, `residual` and, from a cache with a teacher, `teacher_features` and
   `teacher_features_offset`, all padded to the frames of the batch.
   `example_kinds.py` says which two examples have one mixture, and which are prompted for a sound
   that is absent.
6. `prompter.py` reads the texts and the activities of target and residual (`energy.py`) and writes
   `valid`, `text_ids`, `text_mask` (in other words by `wordings.py`), the anchors of the spans
   (`span_prompts.py`) and, of data that has any, `video`.
7. `pipeline.py` stacks examples to batches, with the same keys and an axis of rows in front;
   under a budget of frames `length_buckets.py` decides their length.

The codec is trained on excerpts of single recordings: steps 1 and 2, `excerpts.py`, step 7.

The order of random draws is a contract. Example `i` draws from one generator, seeded by (seed, i):

* mixed: recipe, target, residual, levels; length; text and spans; whether a video is dropped, of
  data that has any. In a bucket the length is first.
* cached: target or residual, length, crop; text and spans; video, likewise. The record is the next
  of a shuffled round; one that cannot be read is replaced by a random one, drawn first.

The second example of a pair has the draws of the first up to its prompts, which have a generator of
their own, as has an absent prompt.

A new draw, or another order, changes all that is drawn later: resumed runs and caches would go on
with other data. So a new draw comes last in its stage, or is made only when an option that is off
by default is on. `tests/data/test_random_streams.py` holds the first batches of each kind of stream
to the numbers that they always had.
"""
