"""How a model separates: the options of a call, and its own config where these leave a choice."""

import dataclasses
import json
from typing import Any

from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.separation_pipeline import Pipeline


def effective_settings(pipeline: Pipeline, options: SeparateOptions) -> dict[str, Any]:
    """The solver, the level, the ignored spans and, if options ask for it, the refinement.

    It is plain JSON: what is saved beside results compares with it after it was read again.
    """
    settings = {
        **dataclasses.asdict(options.sampler(pipeline.sampler)),
        "refinement": dataclasses.asdict(pipeline.refinement) if options.refine else None,
        "level_db": pipeline.level_db,
        "ignored_spans": pipeline.ignored_spans,
    }
    return json.loads(json.dumps(settings))
