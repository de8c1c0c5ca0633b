"""Saved configs of earlier versions, converted to the fields of today.

In format 1 the fields of the data section were flat; since format 2 each is in the part that it
belongs to: `data.snr_db` became `data.mix.snr_db`. This holds for runs (`config.json` of a workdir)
and for the `recipe` of latent caches (`plan.json`, `cache.json`).
"""

from typing import Any

SOURCE = {
    "source": (
        "manifests",
        "split",
        "multitracks",
        "tfds",
        "tfds_fields",
        "streamed",
        "cache_mb",
        "most_bad",
    )
}
MIX = (
    "seconds",
    "recipes",
    "snr_db",
    "stem_gain_db",
    "level_db",
    "second_share",
    "target_repeats",
    "residual_repeats",
    "speed",
    "speed_share",
    "tilt_db",
    "caption_draws",
    "caption_power",
    "speed_of",
    "near_share",
    "single_kinds",
    "filter_share",
    "filter_db",
    "offset_share",
    "offset",
    "reverb_share",
    "impulse_responses",
    "coded_share",
    "codecs",
    "random_start",
    "plausible_share",
    "plausible",
    "silence",
)
PROMPTS = (
    "caption_share",
    "text_dropout",
    "video_dropout",
    "drop_any_text",
    "span_share",
    "negative_share",
    "subset_share",
    "jitter_s",
    "max_spans",
    "swap_share",
    "text_tokens",
    "tokenizer",
    "pair_share",
    "absent_share",
    "wording_share",
)
BATCHES = (
    "short_share",
    "token_budget",
    "buckets_s",
    "shortest_s",
    "bucket_shares",
    "row_multiple",
)
# Experiment -> part of its data section -> fields that were flat.
PARTS = {
    "TrainConfig": SOURCE | {"mix": MIX, "prompts": PROMPTS, "batches": BATCHES},
    "CodecTrainConfig": SOURCE,
}


def migrated_run(run: dict[str, Any]) -> dict[str, Any]:
    """`{"experiment": class name, "config": fields}` of a run with today's fields.

    A run that has them already, or is of no known experiment, is returned as it is.
    """
    config = run.get("config", {})
    parts = PARTS.get(run.get("experiment", ""))
    if parts is None or "data" not in config:
        return run
    return run | {"config": config | {"data": _in_parts(config["data"], parts)}}


def migrated_recipe(recipe: dict[str, Any]) -> dict[str, Any]:
    """The recipe of a latent cache with today's fields; one that has them is returned as it is."""
    return _in_parts(recipe, PARTS["TrainConfig"])


def _in_parts(fields: dict[str, Any], parts: dict[str, tuple[str, ...]]) -> dict[str, Any]:
    """Moves flat fields into their part; all others stay, so that unknown ones are still named."""
    part_of = {name: part for part, names in parts.items() for name in names}
    moved: dict[str, Any] = {}
    for name, value in fields.items():
        if name in part_of:
            part = part_of[name]
            moved[part] = moved.get(part, {}) | {name: value}
        else:
            moved[name] = value
    return moved
