"""Masked video as a prompt: features once per item, any mixture of items, every wrong input."""

import json

import numpy as np
import pytest

from sam_audio_jax import SAMAudio, SAMAudioProcessor
from sam_audio_jax.convert.load import load_networks
from sam_audio_jax.encoders.clips import encode_clips
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import video_prompts
from sam_audio_jax.video.frames import latent_times, spread_indices
from tests.video.clips import frames_at
from tests.video.clips import write as write_video

RATE = 8_000
COUNT, HEIGHT, WIDTH = 6, 32, 48


@pytest.fixture(scope="module")
def frames():
    return np.random.default_rng(0).integers(0, 256, (COUNT, HEIGHT, WIDTH, 3), np.uint8)


@pytest.fixture(scope="module")
def mask():
    marked = np.zeros((COUNT, HEIGHT, WIDTH), bool)
    marked[:, 8:24, 10:30] = True
    return marked


def same(left, right, atol=2e-5):
    np.testing.assert_allclose(left.target, right.target, atol=atol)
    np.testing.assert_allclose(left.residual, right.residual, atol=atol)


def test_masked_video_conditions_the_solve(model, noise_of, frames, mask):
    item = {"audio": noise_of(1.01), "text": "dog", "sample_rate": RATE}
    stems = model.separate(**item, video=frames, mask=mask)
    visible = frames * mask[..., None]
    same(stems, model.separate(**item, masked_videos=visible), atol=0)
    chosen = visible[spread_indices(COUNT, 26)]
    (features,) = encode_clips(model.pipeline.video_features.tower, [chosen])
    same(stems, model.separate(**item, video_features=features))
    others = [
        model.separate(**item),
        model.separate(**item, video=frames, mask=mask, mask_keeps="background"),
    ]
    for other in others:
        assert np.abs(stems.target - other.target).max() > 1e-4
    (hidden,) = SAMAudioProcessor().mask_videos([frames.transpose(0, 3, 1, 2)], [mask[:, None]])
    same(others[1], model.separate(**item, masked_videos=hidden), atol=0)


def test_a_video_file_is_read_at_the_times_of_the_latents(model, noise_of, frames, tmp_path):
    path = write_video(tmp_path / "street.mkv", frames, rate=5)
    chosen = frames_at(path, latent_times(26, 320, RATE))
    (features,) = encode_clips(model.pipeline.video_features.tower, [chosen])
    item = {"audio": noise_of(1.01), "sample_rate": RATE}
    same(model.separate(**item, video=path), model.separate(**item, video_features=features))


def test_items_with_and_without_video_share_a_call(model, noise_of, frames, mask):
    waves = [noise_of(1.01, seed) for seed in range(2)]
    together = model.separate(
        waves, ["dog", "cat"], sample_rate=RATE, video=[frames, None], mask=[mask, None]
    )
    same(together[0], model.separate(waves[0], "dog", sample_rate=RATE, video=frames, mask=mask))
    same(together[1], model.separate(waves[1], "cat", sample_rate=RATE))


def test_a_processors_batch_may_hold_videos(model, noise_of, frames):
    waves = [noise_of(1.0, 0), noise_of(0.6, 1)]
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
    theirs = frames.transpose(0, 3, 1, 2)  # [frames, 3, height, width]
    batch = processor(["dog", "cat"], waves, masked_videos=[theirs, theirs[:2]])
    result = model.separate(batch)
    features = [np.zeros((25, 4), "f4") for _ in waves]
    for row, clip, size in zip(features, (frames, frames[:2]), batch.sizes, strict=True):
        row[:size] = encode_clips(
            model.pipeline.video_features.tower, [clip[spread_indices(len(clip), int(size))]]
        )[0]
    plain = processor(["dog", "cat"], waves)
    with_features = model.separate(type(plain)(**vars(plain) | {"video_features": features}))
    for item in range(2):
        np.testing.assert_allclose(result.target[item], with_features.target[item], atol=2e-5)
    assert np.abs(result.target[0] - model.separate(plain).target[0]).max() > 1e-4
    mixed = model.separate(processor(["dog", "cat"], waves, masked_videos=[theirs, None]))
    np.testing.assert_allclose(mixed.target[0], result.target[0], atol=2e-5)


@pytest.mark.golden
def test_frames_are_chosen_as_by_the_references_processor(fixtures_dir, model):
    facts = json.loads((fixtures_dir / "model" / "processor.json").read_text())
    processor = SAMAudioProcessor(
        audio_sampling_rate=facts["sample_rate"], audio_hop_length=facts["hop"]
    )
    codec = model.codec.config
    cases = [case for case in facts["frames"] if case["kind"] == "tensor"]
    assert cases
    for case in cases:
        numbers = np.arange(case["frames"], dtype=np.uint16)
        clip = np.zeros((case["frames"], 3, 2, 2), np.uint8)
        clip[:, 0], clip[:, 1] = (numbers[:, None, None] >> shift & 255 for shift in (8, 0))
        wave = np.full(case["size"] * facts["hop"], 0.1, "f4")
        batch = processor([""], [wave], masked_videos=[clip])
        seen = np.concatenate(list(batch.masked_videos[0].frames(int(batch.sizes[0]), codec)))
        chosen = seen[:, 0, 0, 0].astype(int) * 256 + seen[:, 0, 0, 1]
        np.testing.assert_array_equal(chosen, case["index"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"mask": np.ones((COUNT, 9, 9), bool)}, "the mask of the video of audio is 9 x 9 pixels"),
        ({"mask": np.ones((3, HEIGHT, WIDTH), bool)}, "has 3 frames, the video has more"),
        ({"mask": np.zeros((COUNT, HEIGHT, WIDTH), bool)}, "marks no object"),
        ({"mask": "nowhere.npz"}, "no mask at nowhere.npz"),
        ({"mask_keeps": "sound"}, "mask_keeps='sound' is unknown; allowed: object, background"),
        ({"video": None, "mask": np.ones((1, 2, 2), bool)}, "has a mask but no video"),
        ({"video": np.zeros((0, 4, 4, 3), np.uint8)}, "the video of audio has no frames"),
        ({"video": np.zeros((2, 4, 4), np.uint8)}, r"must be a path or uint8 frames"),
        ({"video": "nowhere.mp4"}, "no video file at nowhere.mp4"),
        ({"masked_videos": 1}, "video and masked_videos are two names"),
        ({"video_features": np.zeros((25, 4), "f4")}, r"needed are floats of shape \(26, 4\)"),
        ({"audio": [np.ones(9, "f4")]}, "video needs one value for each of 1 recordings"),
    ],
)
def test_wrong_videos(model, noise_of, frames, arguments, message):
    good = {"audio": noise_of(1.01), "sample_rate": RATE, "video": frames}
    with pytest.raises(UserError, match=message) as caught:
        model.separate(**good | arguments)
    assert "\n" not in str(caught.value)


def test_video_without_a_vision_tower_is_the_users_error(folder, noise_of, frames):
    codec, prompted, tokenizer, extra = load_networks(str(folder))
    without_tower = SAMAudio(codec, prompted, tokenizer_for(tokenizer))
    with pytest.raises(UserError, match="this model has no vision tower"):
        without_tower.separate(noise_of(1.01), sample_rate=RATE, video=frames)
    processor = SAMAudioProcessor(audio_sampling_rate=RATE, audio_hop_length=320)
    batch = processor(["dog"], [noise_of(1.0)], masked_videos=[frames])
    with pytest.raises(UserError, match="this model has no vision tower"):
        without_tower.separate(batch)
    assert video_prompts.stored_tower({"rest": {}}) is None
    wrong = video_prompts.VideoFeatures(video_prompts.stored_tower(extra), codec.config, width=7)
    with pytest.raises(UserError, match="makes 4 features of a frame, the separator takes 7"):
        wrong(video_prompts.Clip(source=frames), 5)


def test_a_model_that_never_saw_a_video_refuses_one(noise_of, frames):
    blind = SAMAudio.from_pretrained("tiny")
    seen = np.ones((25, blind.pipeline.video_width), np.float32)
    for prompt in ({"video_features": seen}, {"video_features": [seen]}):
        audio = noise_of(1.0) if isinstance(prompt["video_features"], np.ndarray) else [noise_of(1)]
        with pytest.raises(UserError, match="never trained on videos"):
            blind.separate(audio, sample_rate=RATE, **prompt)
    blind.pipeline.video_features.vision = video_prompts.StoredTower(load=lambda: None)
    with pytest.raises(UserError, match="never trained on videos"):
        blind.separate(noise_of(1.0), sample_rate=RATE, video=frames)
