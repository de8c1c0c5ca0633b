"""What a training run of an audio tower evaluates: whether held-out sounds find their captions.

Each sound of the held-out cache is compared with all captions of both caches. The rank of its own
caption is that among it and the captions that are not true of the sound. The tower with averaged
weights is saved each time in `WORKDIR/audio_tower`, a folder that `open_audio_tower` reads.
"""

from collections.abc import Callable

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Float, Int, PyTree

from sam_audio_jax import parallel
from sam_audio_jax.convert.audio_tower import save_audio_tower, stored_audio_tower
from sam_audio_jax.data.captioned_latents import CaptionedLatents
from sam_audio_jax.encoders.audio_tower import AudioTextSpace, AudioTower
from sam_audio_jax.encoders.text_means import TextMeans, unit
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import write_json
from sam_audio_jax.train.audio_text_objective import cosines_of
from sam_audio_jax.train.config import AudioTextTrainConfig
from sam_audio_jax.train.loop import to_devices
from sam_audio_jax.train.step import TrainState
from sam_audio_jax.workdir import Workdir

FIRST = (1, 5)  # ranks up to which sounds are counted


def audio_text_evaluation(
    workdir: Workdir,
    config: AudioTextTrainConfig,
    tower: AudioTower,
    space: AudioTextSpace,
    texts: TextMeans,
    held_out: CaptionedLatents | None,
    seen: int,
    mesh: Mesh,
) -> Callable[[TrainState, int, bool], dict[str, float]]:
    """Returns what the loop calls to evaluate a state; without `held_out` it only saves the tower.

    The first `seen` captions of `held_out` are those of the training.
    """
    graph = nnx.graphdef(tower)
    vectors = None if held_out is None else unit(texts(held_out.captions))

    def evaluate(state: TrainState, step: int, ended: bool) -> dict[str, float]:
        del ended
        save(workdir, config, graph, state.ema, space, step)
        if held_out is None or vectors is None:
            return {}
        found = ranks(graph, state.ema, held_out, vectors, config.batch, mesh)
        numbers = summary(*found, seen=seen)
        if jax.process_index() == 0:
            write_json(workdir.evaluation(step) / "retrieval.json", {"step": step} | numbers)
        return numbers

    return evaluate


def check_best_metric(
    config: AudioTextTrainConfig, held_out: CaptionedLatents | None, seen: int
) -> None:
    """Raises `UserError` for a `checkpoint.best_metric` that no evaluation of the run measures.

    So a run does not find out at its first evaluation.
    """
    best = config.checkpoint.best_metric
    if not best:
        return
    if held_out is None:
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated without a data.valid_cache"
        )
    number = {text: number for number, text in enumerate(held_out.captions)}
    captions = np.array([number[sound.texts[0]] for sound in held_out.sounds])
    names = summary(np.ones_like(captions), np.ones_like(captions), captions, seen=seen)
    if best not in names:
        raise UserError(
            f"checkpoint.best_metric={best} is not evaluated; allowed: {', '.join(names)}"
        )


def save(
    workdir: Workdir,
    config: AudioTextTrainConfig,
    graph: nnx.GraphDef[AudioTower],
    weights: PyTree,
    space: AudioTextSpace,
    step: int,
) -> None:
    """Writes the tower's folder; all processes must call it."""
    if jax.process_count() > 1:
        weights = parallel.gather_to_local(weights)
    if jax.process_index() == 0:
        notes = {"trained": {"cache": config.data.cache, "step": step}}
        stored = stored_audio_tower(nnx.merge(graph, weights), space, notes)
        save_audio_tower(workdir.audio_tower, stored, overwrite=True)


def ranks(
    graph: nnx.GraphDef[AudioTower],
    weights: PyTree,
    held_out: CaptionedLatents,
    vectors: Float[np.ndarray, "captions embedding"],
    batch: int,
    mesh: Mesh,
) -> tuple[Int[np.ndarray, " sounds"], Int[np.ndarray, " sounds"], Int[np.ndarray, " sounds"]]:
    """Of every held-out sound: the rank of its caption, from 1; of how many; which caption it is.

    Each process reads its share of the rows.
    """
    index, count = parallel.process_rows(mesh)
    own, total = batch // count, len(held_out.sounds)
    run, rows = cosines_of(graph), []
    for first in range(0, total, batch):
        start = first + index * own
        # Rows that are left over repeat the last sound; their ranks are dropped.
        examples = [held_out.example(min(n, total - 1)) for n in range(start, start + own)]
        arrays = {name: np.stack([one[name] for one in examples]) for name in examples[0]}
        with jax.set_mesh(mesh):
            on_devices = to_devices(arrays, mesh)
            cosines = run(weights, vectors, on_devices["latents"], on_devices["valid"])
            everywhere = parallel.replicated(mesh)
            kept = (on_devices["caption"], on_devices["wrong"], cosines)
            rows.append([np.asarray(jax.device_put(value, everywhere)) for value in kept])
    caption, wrong, cosines = (np.concatenate(parts)[:total] for parts in zip(*rows, strict=True))
    wanted = np.take_along_axis(cosines, caption[:, None], axis=1)
    rank = 1 + np.sum(wrong & (cosines >= wanted), axis=1)
    return rank, 1 + wrong.sum(axis=1), caption


def summary(
    rank: Int[np.ndarray, " sounds"],
    among: Int[np.ndarray, " sounds"],
    caption: Int[np.ndarray, " sounds"],
    *,
    seen: int,
) -> dict[str, float]:
    """The shares of sounds whose caption comes first or early, by whether training had it.

    Beside them what chance would give, and the median of the ranks.
    """
    kinds = {
        "all": np.ones(len(rank), bool),
        "seen": caption < seen,
        "unseen": caption >= seen,
    }
    numbers: dict[str, float] = {}
    for kind, chosen in kinds.items():
        if not chosen.any():
            continue
        for first in FIRST:
            numbers[f"top{first}/{kind}"] = float(np.mean(rank[chosen] <= first))
            numbers[f"chance{first}/{kind}"] = float(np.mean(np.minimum(1, first / among[chosen])))
        numbers[f"median_rank/{kind}"] = float(np.median(rank[chosen]))
        numbers[f"sounds/{kind}"] = float(np.sum(chosen))
    return numbers
