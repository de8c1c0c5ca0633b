"""How well candidates sound like what a masked video shows, by ImageBind.

Arithmetic: docs/scoring.md, "ImageBind".
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32, Int

from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.call import Compiled
from sam_audio_jax.scorers import views
from sam_audio_jax.scorers.imagebind import ImageBind, Vectors
from sam_audio_jax.scorers.pieces import PieceShape, WavePiece, each_candidate, run_pieces
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView
from sam_audio_jax.video.frames import Frames

VIDEO_RATE = 25  # frames a second among which the reference chooses: one for each of its latents
CLIPS = 24  # of sound in one batch, for each shard

Video = Callable[[Float[np.ndarray, " times"]], Iterator[Frames]]


def encode_pieces(
    network: ImageBind, source: Array, skipped: Array, lengths: Array, *, shape: PieceShape
) -> Vectors:
    """The vectors of clips of sound whose sources `PieceShape.cut` returned."""
    spectra = network.spectra(shape.resample(source, skipped, lengths), lengths)
    return network.encode_spectra(spectra)


class ImageBindScorer:
    """The cosine of the vectors of a candidate and of its item's masked video, in -1..1.

    Of a recording of any length it reads three clips of sound and five of video. The vector of the
    video is computed once for all candidates.
    """

    needs: Needs = "video"
    axes = ("imagebind",)

    def __init__(self, network: ImageBind, mesh: Mesh | None = None, *, clips: int = CLIPS):
        """`clips` of sound are encoded at once on each shard of a batch."""
        self.config, self.clips = network.config, clips
        self.compiled = Compiled(network, mesh)

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """As `Scorer.score`.

        Raises `UserError` for sounds of less than a spectrum's window, and where one has no video.
        """
        videos = [view.video for view in prompts if view.video is not None]
        if len(videos) != len(candidates):
            raise UserError(
                f"ImageBind needs a video of each sound, and {len(videos)} of {len(candidates)} "
                "have one"
            )
        waves = each_candidate(candidates, lengths)
        sounds = self.encode_sounds(waves, sample_rate).reshape(*candidates.shape[:2], -1)
        seen = self.encode_videos(videos, [int(length) for length in lengths], sample_rate)
        return {self.axes[0]: np.einsum("bko,bo->bk", sounds, seen)}

    def encode_sounds(
        self, waves: Sequence[Float[np.ndarray, " _"]], sample_rate: int
    ) -> Float32[np.ndarray, "waves output"]:
        """Unit vectors of mono recordings of any lengths, all at `sample_rate`."""
        config = self.config
        size, rate = config.clip_samples, config.sample_rate
        shape = PieceShape(size=size, from_rate=sample_rate, to_rate=rate)
        pieces = []
        for row, wave in enumerate(waves):
            length = shape.resampled_length(len(wave))
            if length < config.window:
                raise UserError(
                    f"a recording of {len(wave) / sample_rate:.3g} s is too short for ImageBind: "
                    f"at least {config.window / rate:g} s are needed"
                )
            starts = views.clip_starts(length / rate, config.clip_s, config.audio_clips)
            first = [int(start * rate) for start in starts]
            pieces += [WavePiece(row, start, min(size, length - start)) for start in first]
        vectors = run_pieces(self.compiled, encode_pieces, waves, pieces, shape, batch=self.clips)
        return _mean(vectors.reshape(len(waves), config.audio_clips, -1))

    def encode_videos(
        self, videos: Sequence[Video], lengths: Sequence[int], sample_rate: int
    ) -> Float32[np.ndarray, "videos output"]:
        """Unit vectors of videos, each with the samples of its sound."""
        shards, vectors = self.compiled.batch_shards, []
        for first in range(0, len(videos), shards):
            chosen = zip(
                videos[first : first + shards], lengths[first : first + shards], strict=True
            )
            crops = [self.crops(video, length, sample_rate) for video, length in chosen]
            crops += [np.zeros_like(crops[0])] * (shards - len(crops))
            result = self.compiled.on_batch(ImageBind.encode_crops, np.concatenate(crops))
            vectors.append(np.asarray(result).reshape(shards, len(crops[0]), -1))
        return _mean(np.concatenate(vectors)[: len(videos)])

    def crops(
        self, video: Video, samples: int, sample_rate: int
    ) -> Float32[np.ndarray, "crops frames size size 3"]:
        """The crops of all clips of the video of a sound, clip by clip."""
        config = self.config
        frames = max(-(-samples * VIDEO_RATE // sample_rate), 1)
        indices = views.frame_indices(
            frames,
            samples / sample_rate,
            clip_s=config.clip_s,
            clips=config.video_clips,
            per_clip=config.clip_frames,
        )
        # All frames are read, as a video in memory is spread over the times that it is read at.
        pictures = _pick(video(np.arange(frames) / VIDEO_RATE), indices.reshape(-1))
        cropped = np.asarray(views.crops(pictures, config.image_size))
        by_clip = cropped.reshape(*indices.shape, *cropped.shape[1:]).swapaxes(1, 2)
        return by_clip.reshape(-1, config.clip_frames, *cropped.shape[2:])


def _pick(pieces: Iterator[Frames], indices: Int[np.ndarray, " chosen"]) -> Frames:
    """The frames of these indices; no others are kept."""
    found, first = {}, 0
    for piece in pieces:
        inside = indices[(indices >= first) & (indices < first + len(piece))]
        found |= {int(index): piece[index - first].copy() for index in inside}
        first += len(piece)
    return np.stack([found[int(index)] for index in indices])


def _mean(
    vectors: Float32[np.ndarray, "items clips output"],
) -> Float32[np.ndarray, "items output"]:
    """The mean over the clips of each item, brought to length 1."""
    mean = vectors.mean(axis=1)
    return mean / np.maximum(np.linalg.norm(mean, axis=-1, keepdims=True), 1e-12)
