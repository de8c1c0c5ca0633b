"""Which networks beside a model's own its results depend on: those of prompts, and scorers.

By what is saved of them it is known later whether they are the same, whatever they are called.
"""

import contextlib
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flax import nnx

from sam_audio_jax.bounds import Checked
from sam_audio_jax.convert.rankers import StoredScorer
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import check_text
from sam_audio_jax.infer.manifest import Entry
from sam_audio_jax.infer.options import SeparateOptions
from sam_audio_jax.infer.separation_pipeline import Pipeline
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.nn.fingerprint import fingerprint
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.scorer import PromptView, Scorer

PROMPT_NETWORKS: Mapping[str, Callable[[Any], nnx.Module]] = {
    "audio_tower": lambda pipeline: pipeline.like_vectors.require().read(),
    "vision_tower": lambda pipeline: pipeline.video_features.tower,
    "span_predictor": lambda pipeline: pipeline.span_finder.predictor[0],
}


def prompt_network(pipeline: Any, name: str) -> str:
    """The fingerprint of one of `PROMPT_NETWORKS` of a `Pipeline`, or of what acts as one.

    Raises `UserError` where it cannot be read.
    """
    return fingerprint(PROMPT_NETWORKS[name](pipeline))


def identity(scorer: Scorer) -> Any:
    """JSON that distinguishes scorers: the class, its settings, the weights of its networks."""
    if isinstance(scorer, Ensemble):
        return {name: [identity(one), weight] for name, (one, weight) in scorer.members.items()}
    if isinstance(scorer, StoredScorer):
        return identity(scorer.load())
    parts = list(vars(scorer).values())
    weights = [fingerprint(part.network) for part in parts if isinstance(part, Compiled)]
    configs = [part for part in parts if isinstance(part, Checked)]
    settings = [
        dataclasses.asdict(config) for config in configs if dataclasses.is_dataclass(config)
    ]
    return [type(scorer).__name__, *weights, *settings]


def networks_of(
    pipeline: Pipeline, options: SeparateOptions, entries: Sequence[Entry]
) -> dict[str, Any]:
    """By name, JSON that distinguishes the networks beside the model's that these items need.

    One that cannot be read is not in it: its items fail, and say why.
    """
    views = [view for entry in entries for view in _views(entry)]
    needed = {
        "audio_tower": any(entry.like is not None for entry in entries),
        "vision_tower": any(entry.video is not None for entry in entries),
        "span_predictor": options.predict_spans and any(v.text and not v.spans for v in views),
    }
    found: dict[str, Any] = {}
    for name in [name for name, is_needed in needed.items() if is_needed]:
        with contextlib.suppress(UserError):
            found[name] = prompt_network(pipeline, name)
    kinds = {(bool(v.text), bool(v.spans), bool(v.sounding), v.video is None): v for v in views}
    for view in kinds.values():
        with contextlib.suppress(UserError):
            if ranker := pipeline.ranker(view, options, "a line"):
                found[f"ranker of {ranker.needs}"] = identity(ranker)
    return json.loads(json.dumps(found))  # compares with what is read from a file


def _views(entry: Entry) -> list[PromptView]:
    """The prompts of each text of an item, as a ranker is chosen by them."""
    video = None if entry.video is None else lambda times: iter(())
    texts = entry.texts or [(check_text(entry.text, entry.id), entry.spans)]
    return [PromptView(text=text, spans=spans, video=video) for text, spans in texts]
