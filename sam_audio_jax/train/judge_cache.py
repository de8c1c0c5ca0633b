"""What the frozen parts of a judge make of a table's sounds, computed once for all updates.

A frozen encoder gives the same at every update, so its outputs are stored as float16: latents, or
the frames of the audio transformer where that is frozen, too. A folder serves any number of tables
and trainings that have these weights; sounds that it lacks, or whose files have changed, are added.

    PROBE/00003/values.npy    [sounds, frames, width], zeros behind the end of a sound
    PROBE/00003/sounds.json   paths and frames of its sounds, and stamps of their files
"""

import functools
import hashlib
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, Float32

from sam_audio_jax.codec.codec import pad_to_hop
from sam_audio_jax.data.encoded_sounds import SOUNDS, VALUES, EncodedSounds, Stage, stamp_of
from sam_audio_jax.data.ratings import RatedPair, clip
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import whole_folder, write_json
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.scorers.judge import Judge
from sam_audio_jax.train.config import JudgeTrainConfig

PER_SHARD = 512
ROWS = 16  # sounds that are encoded at once

_Sound = tuple[str, str]  # its path, and that of the mixture that it is of


def frozen_stage(config: JudgeTrainConfig) -> Stage:
    """How far the frozen parts of a judge encode a sound."""
    if "wave_encoder" not in config.frozen:
        return ""
    return "frames" if {"project", "audio"} <= set(config.frozen) else "latents"


def open_judge_cache(
    config: JudgeTrainConfig, judge: Judge, pairs: Sequence[RatedPair]
) -> EncodedSounds | None:
    """The outputs of the frozen parts for all sounds of a table; None without `data.cache`.

    Computes those that the folder lacks, at most the first `data.seconds` of each. Raises
    `UserError` where nothing is frozen, and in a run of several processes.
    """
    if not config.data.cache:
        return None
    stage = frozen_stage(config)
    if not stage:
        raise UserError("data.cache needs frozen parts: frozen has no wave_encoder")
    if jax.process_count() > 1:
        raise UserError("data.cache is for runs of one process: leave it empty")
    frames = config.data.frames(config.judge)
    folder = pathlib.Path(config.data.cache) / _probe(judge, stage, frames)
    known = EncodedSounds(stage, folder)
    # Of each sound the mixture that it is of, with whose weights its channels are added up.
    sounds: dict[str, str] = {}
    for pair in pairs:
        for path in (pair.mixture, pair.separated):
            sounds.setdefault(path, pair.mixture)
    missing = [sound for sound in sounds.items() if not known.is_current(sound[0])]
    for shard in progress_bar(range(0, len(missing), PER_SHARD), desc="encoding", leave=False):
        _write_shard(folder, judge, stage, frames, missing[shard : shard + PER_SHARD])
    return EncodedSounds(stage, folder) if missing else known


def _write_shard(
    folder: pathlib.Path, judge: Judge, stage: Stage, frames: int, sounds: Sequence[_Sound]
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    last = max((int(shard.name) for shard in folder.glob("[0-9]*")), default=-1)
    with whole_folder(folder / f"{last + 1:05d}") as part:
        paths = [path for path, _ in sounds]
        stamps = [stamp_of(path) for path in paths]
        values, counts = [], []
        for rows, lengths in _encoded(judge, stage, frames, sounds):
            values.append(rows.astype(np.float16))
            counts += lengths
        np.save(part / VALUES, np.concatenate(values))
        index = {"paths": paths, "frames": counts, "stamps": stamps}
        write_json(part / SOUNDS, index, indent=None)


def _encoded(
    judge: Judge, stage: Stage, frames: int, sounds: Sequence[_Sound]
) -> Iterator[tuple[Float32[np.ndarray, "rows frames width"], list[int]]]:
    """Outputs of the stage, `ROWS` sounds at a time, and their lengths in frames."""
    hop, rate = judge.config.hop, judge.config.sample_rate
    graph, weights = nnx.split(judge)
    for first in range(0, len(sounds), ROWS):
        chosen = sounds[first : first + ROWS]
        waves = np.zeros((ROWS, frames * hop), np.float32)
        lengths = []
        for row, (path, mixture) in enumerate(chosen):
            wave = pad_to_hop(clip(path, rate, mixture)[: frames * hop], hop)
            waves[row, : len(wave)] = wave
            lengths.append(len(wave) // hop)
        valid = np.arange(frames) < np.array(lengths + [0] * (ROWS - len(chosen)))[:, None]
        outputs = _run(graph, stage)(weights, waves, valid)
        yield np.asarray(outputs)[: len(chosen)] * valid[: len(chosen), :, None], lengths


@functools.cache
def _run(graph: nnx.GraphDef[Judge], stage: Stage):
    def run(
        weights: nnx.State, waves: Float[Array, "rows samples"], valid: Array
    ) -> Float[Array, "rows frames width"]:
        judge = nnx.merge(graph, weights)
        latents = judge.latents(waves)
        return latents if stage == "latents" else judge.embed_audio(latents, valid)

    return jax.jit(run)


def _probe(judge: Judge, stage: Stage, frames: int) -> str:
    """A name for frozen weights: other weights, another stage or length give another."""
    parts = ("wave_encoder",) if stage == "latents" else ("wave_encoder", "project", "audio")
    digest = hashlib.sha256(f"2 {stage} {frames}".encode())
    for path, leaf in nnx.to_flat_state(nnx.state(judge)):
        if path[0] in parts:
            digest.update(repr(path).encode() + np.asarray(leaf[...]).tobytes())
    return f"{stage}-{digest.hexdigest()[:16]}"
