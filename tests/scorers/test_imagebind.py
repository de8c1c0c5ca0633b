"""ImageBind's towers against a plain NumPy form of docs/scoring.md, "ImageBind"; crops; scores."""

import math

import jax
import numpy as np
import pytest
import scipy.special

from sam_audio_jax.convert.imagebind import imagebind_from_reference
from sam_audio_jax.errors import UserError
from sam_audio_jax.scorers import views
from sam_audio_jax.scorers.imagebind import ImageBindConfig
from sam_audio_jax.scorers.imagebind_scorer import VIDEO_RATE, ImageBindScorer
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests.scorers.tiny_imagebind import TINY, random_state


@pytest.fixture(scope="module")
def state():
    return random_state()


@pytest.fixture(scope="module")
def scorer(state):
    return ImageBindScorer(imagebind_from_reference(state, TINY), clips=4)


def norm(x, state, name, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    normal = centred / np.sqrt(np.square(centred).mean(axis=-1, keepdims=True) + eps)
    return normal * state[f"{name}.weight"] + state[f"{name}.bias"]


def attention(x, state, name, heads):
    """torch's multi-head attention of one sequence `[tokens, width]`, its fused rows q, k, v."""
    projected = x @ state[f"{name}.in_proj_weight"].T + state[f"{name}.in_proj_bias"]
    q, k, v = np.split(projected, 3, axis=-1)
    if f"{name}.bias_k" in state:
        k, v = (
            np.vstack([k, state[f"{name}.bias_k"][0]]),
            np.vstack([v, state[f"{name}.bias_v"][0]]),
        )
    size = x.shape[-1] // heads
    mixed = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = scipy.special.softmax(q[:, part] @ k[:, part].T / math.sqrt(size), axis=-1)
        mixed.append(scores @ v[:, part])
    out = np.concatenate(mixed, axis=-1)
    return out @ state[f"{name}.out_proj.weight"].T + state[f"{name}.out_proj.bias"]


def trunk(tokens, state, modality, config):
    """The unit vector of one input's patches `[tokens, width]`."""
    before = f"modality_preprocessors.{modality}"
    x = np.vstack([state[f"{before}.cls_token"][0], tokens])
    x = x + state[f"{before}.pos_embedding_helper.pos_embed"][0]
    if config.norm_in:
        x = norm(x, state, f"modality_trunks.{modality}.pre_transformer_layer.0", 1e-6)
    for layer in range(config.depth):
        name = f"modality_trunks.{modality}.blocks.{layer}"
        y = norm(x, state, f"{name}.norm_1", 1e-6)
        x = x + attention(y, state, f"{name}.attn", config.heads)
        y = norm(x, state, f"{name}.norm_2", 1e-6)
        y = y @ state[f"{name}.mlp.fc1.weight"].T + state[f"{name}.mlp.fc1.bias"]
        y = y * scipy.special.ndtr(y)  # GELU
        x = x + y @ state[f"{name}.mlp.fc2.weight"].T + state[f"{name}.mlp.fc2.bias"]
    y = norm(x[0], state, f"modality_heads.{modality}.0", 1e-6)
    y = y @ state[f"modality_heads.{modality}.2.weight"].T
    return y / np.linalg.norm(y)


def plain_sound(spectrum, state):
    """The vector of one spectrum `[bands, frames]`."""
    side, stride = TINY.audio_patch, TINY.audio_stride
    kernel = state["modality_preprocessors.audio.rgbt_stem.proj.weight"][:, 0]
    tokens = [
        np.einsum("cyx,yx->c", kernel, spectrum[y : y + side, x : x + side])
        for y in range(0, TINY.bands - side + 1, stride)
        for x in range(0, TINY.spectrum_frames - side + 1, stride)
    ]
    tokens = norm(
        np.stack(tokens), state, "modality_preprocessors.audio.rgbt_stem.norm_layer", 1e-5
    )
    return trunk(tokens, state, "audio", TINY.audio)


def plain_view(view, state):
    """The vector of one crop of two frames `[frames, y, x, 3]`."""
    side = TINY.image_patch
    kernel = state["modality_preprocessors.vision.rgbt_stem.proj.1.weight"]
    tokens = [
        np.einsum("cktyx,tyxk->c", kernel, view[:, y : y + side, x : x + side])
        for y in range(0, TINY.image_size, side)
        for x in range(0, TINY.image_size, side)
    ]
    return trunk(np.stack(tokens), state, "vision", TINY.vision)


def test_towers_equal_the_plain_form(scorer, state):
    rng = np.random.default_rng(1)
    spectra = rng.standard_normal((2, TINY.bands, TINY.spectrum_frames)).astype(np.float32)
    crops = rng.standard_normal((2, 2, TINY.image_size, TINY.image_size, 3)).astype(np.float32)
    network = scorer.compiled.network
    wide = {name: tensor.astype(np.float64) for name, tensor in state.items()}
    sounds, seen = jax.jit(network.encode_spectra)(spectra), jax.jit(network.encode_crops)(crops)
    np.testing.assert_allclose(sounds, [plain_sound(x, wide) for x in spectra], atol=1e-5)
    np.testing.assert_allclose(seen, [plain_view(x, wide) for x in crops], atol=1e-5)
    assert np.abs(sounds[0] - sounds[1]).max() > 0.01


@pytest.mark.parametrize("shape", [(9, 14), (14, 9), (9, 9)])
def test_crops_are_bilinear_along_the_longer_side(shape):
    pictures = np.random.default_rng(0).integers(0, 256, (2, *shape, 3), np.uint8)
    size = 6
    got = np.asarray(views.crops(pictures, size))
    assert got.shape == (2, 3, size, size, 3)
    upright = pictures if shape[0] <= shape[1] else pictures.swapaxes(1, 2)  # longer side last
    long_size = max(shape) * size // 9

    def axis_matrix(small, large):
        source = np.clip((np.arange(small) + 0.5) * large / small - 0.5, 0, None)
        left = np.minimum(source.astype(int), large - 1)
        right, share = np.minimum(left + 1, large - 1), source - left
        return np.eye(large)[left] * (1 - share)[:, None] + np.eye(large)[right] * share[:, None]

    rows, columns = axis_matrix(size, 9), axis_matrix(long_size, max(shape))
    scaled = np.einsum("ay,bx,nyxc->nabc", rows, columns, upright / 255)
    scaled = (scaled - views.MEAN) / views.DEVIATION
    for number, start in enumerate((0, math.ceil((long_size - size) / 2), long_size - size)):
        want = scaled[:, :, start : start + size]
        want = want if shape[0] <= shape[1] else want.swapaxes(1, 2)
        np.testing.assert_allclose(got[:, number], want, atol=1e-5)


def test_clips_of_video_lie_in_it():
    sizes = {"clip_s": 2.0, "clips": 5, "per_clip": 2}
    assert views.frame_indices(1, 0.04, **sizes).tolist() == [[0, 0]] * 5
    slow = views.frame_indices(3, 30.0, **sizes)  # some clips contain no start of a frame
    assert ((slow >= 0) & (slow < 3)).all()
    assert views.clip_starts(1.0, 2.0, 3) == [0, 0, 0]
    assert views.clip_starts(6.0, 2.0, 3) == [0, 2, 4]
    assert views.clip_starts(6.0, 2.0, 1) == [0]


def video(colour, calls):
    """A video whose frames get brighter, as a scorer sees it: two frames at once."""

    def frames(times):
        calls.append(times)
        for start in range(0, len(times), 2):
            levels = (20 + 800 * times[start : start + 2]).astype(np.uint8)[:, None, None]
            yield np.stack(
                [np.broadcast_to(x, (len(levels), 12, 10)) for x in (levels, colour, 255 - levels)],
                axis=-1,
            ).astype(np.uint8)

    return frames


def test_scores_of_a_batch_are_cosines_of_sound_and_video(scorer):
    rng = np.random.default_rng(2)
    rate, lengths = 6_000, np.array([900, 1500])
    candidates = rng.standard_normal((2, 3, 1500)).astype(np.float32)
    mixtures, calls = candidates.sum(axis=1), []
    prompts = [PromptView(video=video(colour, calls)) for colour in (10, 250)]
    assert isinstance(scorer, Scorer)
    (scores,) = scorer.score(mixtures, candidates, lengths, rate, prompts).values()
    assert len(calls) == 2  # not once for each candidate
    for times, length in zip(calls, lengths, strict=True):
        np.testing.assert_allclose(
            times, np.arange(math.ceil(length / rate * VIDEO_RATE)) / VIDEO_RATE
        )

    candidates[0, :, 900:] = 100  # padding of the batch
    (again,) = scorer.score(mixtures, candidates, lengths, rate, prompts).values()
    np.testing.assert_array_equal(again, scores)
    for item, length in enumerate(lengths):
        sounds = scorer.encode_sounds(list(candidates[item, :, :length]), rate)
        (seen,) = scorer.encode_videos([prompts[item].video], [int(length)], rate)
        np.testing.assert_allclose(scores[item], sounds @ seen, atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(sounds, axis=1), 1, rtol=1e-5)
    assert np.ptp(scores) > 1e-3


def test_crops_are_of_the_frames_that_the_indices_name(scorer):
    got = scorer.crops(video(250, []), 1500, 6_000)  # 7 frames in 0.25 s, clips of 0.1 s
    sizes = {"clip_s": 0.1, "clips": 5, "per_clip": 2}
    indices = views.frame_indices(7, 0.25, **sizes)
    assert got.shape == (15, 2, 8, 8, 3)
    red = got[:, :, 0, 0, 0] * views.DEVIATION[0] + views.MEAN[0]
    want = np.repeat(20 + 800 * indices / VIDEO_RATE, 3, axis=0)
    np.testing.assert_allclose(255 * red, want, atol=1e-3)


def test_a_sound_without_a_window_is_the_users_error(scorer):
    with pytest.raises(UserError, match=r"0\.02 s is too short for ImageBind: at least 0\.025 s"):
        scorer.encode_sounds([np.zeros(40, np.float32)], 2_000)


def test_published_sizes():
    config = ImageBindConfig()
    assert (config.image_tokens, config.audio_tokens, config.clip_samples) == (256, 228, 32_000)
    with pytest.raises(UserError, match=r"imagebind\.image_size=225 must be a multiple"):
        ImageBindConfig(image_size=225)
