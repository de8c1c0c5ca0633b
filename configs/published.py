r"""The published kinds of training mixtures as recipes of one stream (arXiv 2512.18099, appendix).

sam-audio prepare published --recipe pieces --out caches/pieces --codec-checkpoint DIR
sam-audio train published --workdir runs/published --codec-checkpoint DIR

Each recipe reads its own folders under `data/` and has its own cache: name others by flags, as
`--data.blend.0.source.multitracks DIR`. The hours that the paper gives are the weights where it
gives them, in thousands of hours; the other weights are ours.

`published@labels` adds pseudo-labels after 100,000 steps. They have no features of a teacher, so it
trains without alignment, from caches that are prepared without a teacher.

Levels are published (5 and 15 dB). Ours: augmentation, the share of absent prompts, near classes.
"""

import dataclasses

from small import CONFIG as SMALL

from sam_audio_jax.data.config import (
    LabelConfig,
    MixConfig,
    RecipeConfig,
    SourceConfig,
)

MIX = MixConfig(
    seconds=30.0,
    snr_db=(-15.0, 15.0),
    stem_gain_db=(-5.0, 5.0),
    silence="absolute",
    random_start=True,
)
SPEECH, MUSIC, SOUNDS = (
    SourceConfig(manifests=(f"data/{name}/manifest.jsonl",), streamed=True)
    for name in ("speech", "music", "sounds")
)


def _all(*sources: SourceConfig) -> SourceConfig:
    """The manifests of several sources as one."""
    names = tuple(name for source in sources for name in source.manifests)
    return SourceConfig(manifests=names, streamed=True)


def _mix(*recipes: tuple[str, str, float], **fields: object) -> MixConfig:
    """The common rules with other kinds of sounds, and fields that differ."""
    return dataclasses.replace(MIX, recipes=recipes, **fields)


BLEND = (
    RecipeConfig(
        name="pieces",  # every instrument in turn, 5 dB up or down: 10,610 pieces, 536 hours
        cache="caches/pieces",
        weight=0.5,
        source=SourceConfig(multitracks=("data/multitracks",), streamed=True),
        mix=_mix(("stem", "rest", 1.0)),
    ),
    RecipeConfig(
        name="conversations",  # one clean channel of each speaker: 21,910 hours
        cache="caches/conversations",
        weight=21.9,
        source=SourceConfig(manifests=("data/conversations/manifest.jsonl",), streamed=True),
        mix=_mix(("speaker", "others", 1.0)),
    ),
    RecipeConfig(
        name="music and sounds",  # 20,000 hours
        cache="caches/music and sounds",
        weight=20.0,
        source=_all(MUSIC, SOUNDS),
        mix=_mix(("music", "sfx", 0.5), ("sfx", "music", 0.5)),
    ),
    RecipeConfig(
        name="two speakers and noise",
        cache="caches/two speakers and noise",
        weight=10.0,
        source=_all(SPEECH, SOUNDS),
        mix=_mix(("speech", "speech+sfx", 1.0)),
    ),
    RecipeConfig(
        name="sounds",
        cache="caches/sounds",
        weight=10.0,
        source=SOUNDS,
        mix=_mix(
            ("sfx", "sfx", 0.8),
            ("sfx", "any", 0.2),
            single_kinds=("sfx",),
            near_share=0.2,
            caption_draws=1.0,
            caption_power=0.5,
            filter_share=0.3,
            coded_share=0.1,
        ),
    ),
)
LABELS = RecipeConfig(
    name="labels",  # of recordings as they are: 1,000 hours were left of a million
    weight=0.0,
    curriculum=((100_000, 5.0),),
    mix=MIX,
    labels=LabelConfig(
        folder="caches/labels",
        clap_target=0.35,
        clap_residual=0.0,
        complexity=2.5,
        silence=0.95,
    ),
)
CONFIG = dataclasses.replace(
    SMALL,
    data=dataclasses.replace(
        SMALL.data,
        mix=MIX,
        cache="",
        blend=BLEND,
        prompts=dataclasses.replace(SMALL.data.prompts, absent_share=0.05),
    ),
)
RECIPES = {
    "labels": dataclasses.replace(
        CONFIG,
        alignment=dataclasses.replace(CONFIG.alignment, weight=0.0),
        data=dataclasses.replace(CONFIG.data, blend=(*BLEND, LABELS)),
    )
}
