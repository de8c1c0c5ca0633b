"""The judge as a scorer of candidates, of recordings of any length and rate.

Windows and their mean: docs/scoring.md, "Judge".
"""

import collections
import dataclasses
import functools
import warnings
from collections.abc import Iterator, Sequence

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Float32, Int

from sam_audio_jax.bounds import Checked, Seconds, Size
from sam_audio_jax.codec.codec import frame_count
from sam_audio_jax.encoders.tokenizer import PretrainedTokenizer, pad_tokens
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled, padded_rows
from sam_audio_jax.scorers.judge import AXES, Judge, JudgeConfig
from sam_audio_jax.scorers.judge_inputs import check_length
from sam_audio_jax.scorers.pieces import PieceShape, embed_each
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView

LEAST_TOKENS = 16  # texts are padded to this or a larger power of two


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeScoring(Checked, where="scoring"):
    """How much is scored at once; both numbers are ours."""

    window_s: Seconds = 20.0  # recordings above it are scored in windows of this length
    # Sound on each shard of a batch, mixtures and candidates together; one window with its
    # candidates is scored even if it is more.
    batch_s: Seconds = 120.0
    texts: Size = 32  # embedded at once on each shard of a batch

    def window_frames(self, config: JudgeConfig) -> int:
        """Frames of a window, at least one."""
        return max(1, round(self.window_s / (config.hop / config.sample_rate)))

    def windows(self, config: JudgeConfig, frames: int, candidates: int) -> int:
        """Windows of so many frames, with their candidates, on each shard of a batch."""
        batch = round(self.batch_s / (config.hop / config.sample_rate))
        return max(1, batch // (frames * (1 + candidates)))


@dataclasses.dataclass(frozen=True)
class _Window:
    """A part of one item; all windows of a group have one length."""

    item: int
    start: int  # samples at the judge's rate, whole frames
    length: int  # samples; what is missing to whole frames is reflected
    counted: int  # its first frames are those of earlier windows: the mean has them already


class JudgeScorer:
    """The judge's four scores of each candidate with its mixture and its text.

    Recordings of up to `window_s` are scored whole, those of equal length together, never padded. A
    longer one is cut into windows; the last one ends with the recording. The score is the mean over
    all frames of the recording, and each frame counts once, in the first window that has it. The
    mixture and the text of an item are embedded once for all candidates.
    """

    needs: Needs = "text"
    axes = AXES

    def __init__(
        self,
        judge: Judge,
        tokenizer: PretrainedTokenizer,
        scoring: JudgeScoring | None = None,
        mesh: Mesh | None = None,
        about: str = "",
    ):
        """`tokenizer` is that of the judge (`load_judge`). With a mesh, batches are sharded.

        `about` says to readers of its scores which judge it is.
        """
        self.config, self.tokenizer, self.about = judge.config, tokenizer, about
        self.scoring = scoring or JudgeScoring()
        self._judge = Compiled(judge, mesh)
        self._mean, self._std = (np.asarray(x[...], np.float64) for x in (judge.mean, judge.std))
        self._window = self.scoring.window_frames(self.config)

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """As `Scorer.score`; recordings at another rate than the judge's are resampled.

        Warns of a text that is too long to be read whole. Raises `UserError` for a recording of
        less than half a frame.
        """
        texts = self.embed_texts([view.text for view in prompts])
        shape = PieceShape(size=1, from_rate=sample_rate, to_rate=self.config.sample_rate)
        groups, frames = collections.defaultdict(list), []
        for item, length in enumerate(lengths):
            samples = shape.resampled_length(int(length))
            check_length(samples, self.config, f"recording {item} of a batch")
            frames.append(frame_count(samples, self.config.hop))
            groups[min(frames[-1], self._window)] += self._windows(item, samples)
        totals = np.zeros((*candidates.shape[:2], len(AXES)))
        for size, windows in sorted(groups.items()):
            shape = dataclasses.replace(shape, size=size * self.config.hop)
            for chosen, sums in self._sums(windows, shape, mixtures, candidates, lengths, texts):
                np.add.at(totals, [window.item for window in chosen], sums)
        means = totals / np.array(frames)[:, None, None]
        scores = (means * self._std + self._mean).astype(np.float32)
        return dict(zip(AXES, np.moveaxis(scores, -1, 0), strict=True))

    def _windows(self, item: int, samples: int) -> Iterator[_Window]:
        hop = self.config.hop
        frames = frame_count(samples, hop)
        size, done = min(frames, self._window), 0
        while done < frames:
            first = min(done, frames - size)
            start = first * hop
            yield _Window(item, start, min(size * hop, samples - start), done - first)
            done = first + size

    def _sums(
        self,
        windows: Sequence[_Window],
        shape: PieceShape,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        texts: Float[np.ndarray, "batch bottleneck"],
    ) -> Iterator[tuple[Sequence[_Window], Float[np.ndarray, "windows candidates axes"]]]:
        """Windows of one size in batches, with their sums over the frames that are counted.

        The last batch is padded to a power of two, so that few shapes are compiled.
        """
        count, size = candidates.shape[1], shape.size // self.config.hop
        shards = self._judge.batch_shards
        most = self.scoring.windows(self.config, size, count)
        for first in range(0, len(windows), most * shards):
            chosen = windows[first : first + most * shards]
            rows = padded_rows(len(chosen), most, shards)
            waves = np.zeros((rows, 1 + count, shape.source_size), np.float32)
            skipped = np.zeros(rows, np.int32)
            for row, window in enumerate(chosen):
                length = lengths[window.item]
                sounds = [mixtures[window.item], *candidates[window.item]]
                for wave, sound in zip(waves[row], sounds, strict=True):
                    wave[:], skipped[row] = shape.cut(sound[:length], window.start)
            items = [window.item for window in chosen] + [chosen[0].item] * (rows - len(chosen))
            ends = [window.length for window in chosen] + [shape.size] * (rows - len(chosen))
            done = [window.counted for window in chosen] + [0] * (rows - len(chosen))
            counted = np.arange(size) >= np.array(done)[:, None]
            sums = self._judge.on_batch(
                window_sums, waves, skipped, np.array(ends), counted, texts[items], shape=shape
            )
            yield chosen, np.asarray(sums)[: len(chosen)]

    def embed_texts(self, texts: Sequence[str]) -> Float32[np.ndarray, "texts bottleneck"]:
        """Embeds texts, each once. Warns of one that is too long to be read whole.

        Raises `UserError` where the tokenizer is another model's.
        """
        for text in dict.fromkeys(texts):
            if cut := self.tokenizer.describe_cut(text):
                warnings.warn(f"a text for the judge {cut}", stacklevel=2)

        def embed(rows: list[str]) -> Float32[np.ndarray, "rows bottleneck"]:
            ids, mask = self.tokenizer(rows)
            if ids.max() >= self.config.text.vocab_size:
                raise UserError(
                    f"the tokenizer gave id {ids.max()}, but the judge's text model knows "
                    f"{self.config.text.vocab_size}: it belongs to another model"
                )
            tokens = pad_tokens(ids, mask, least=LEAST_TOKENS)
            return np.asarray(self._judge.on_batch(Judge.embed_text, *tokens), np.float32)

        return embed_each(texts, embed, most=self.scoring.texts, shards=self._judge.batch_shards)


def window_sums(
    judge: Judge,
    sources: Float[Array, "batch sounds source"],
    skipped: Int[Array, " batch"],
    lengths: Int[Array, " batch"],
    counted: Bool[Array, "batch frames"],
    text: Float[Array, "batch bottleneck"],
    *,
    shape: PieceShape,
) -> Float[Array, "batch candidates axes"]:
    """Sums of the standardised scores of frames; a window's mixture comes before its candidates."""
    batch, sounds, _ = sources.shape
    repeat = functools.partial(jnp.repeat, axis=0)
    lengths = repeat(lengths, sounds)
    waves = shape.resample(sources.reshape(batch * sounds, -1), repeat(skipped, sounds), lengths)
    frames = judge.embed_audio(judge.latents(_reflected(waves, lengths)))
    frames = frames.reshape(batch, sounds, *frames.shape[1:])
    separated = frames[:, 1:].reshape(-1, *frames.shape[2:])
    mixture = repeat(frames[:, 0], sounds - 1)
    scores = judge.frame_scores(mixture, separated, repeat(text, sounds - 1))
    scores = scores.reshape(batch, sounds - 1, *scores.shape[1:])
    return jnp.sum(scores, axis=2, where=counted[:, None, :, None])


def _reflected(
    waves: Float[Array, "batch samples"], lengths: Int[Array, " batch"]
) -> Float[Array, "batch samples"]:
    """Waves whose samples from `lengths` on mirror those before the last one."""
    index = jnp.arange(waves.shape[1])
    mirrored = jnp.maximum(2 * (lengths[:, None] - 1) - index, 0)
    source = jnp.where(index < lengths[:, None], index, mirrored)
    return jnp.take_along_axis(waves, source, axis=1)
