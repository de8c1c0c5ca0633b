"""ImageBind's inputs against the reference's numbers (`imagebind/`)."""

import json
import re

import jax
import numpy as np
import pytest
from flax import nnx
from safetensors.numpy import load_file

from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.imagebind import ImageBind, ImageBindConfig, TrunkConfig
from sam_audio_jax.scorers.views import clip_starts, frame_indices

pytestmark = pytest.mark.golden
CONFIG = ImageBindConfig(  # the published inputs; the towers are not run
    vision=TrunkConfig(width=8, depth=1, heads=2, mlp=8),
    audio=TrunkConfig(width=8, depth=1, heads=2, mlp=8, extra_key=True, norm_in=False),
)


@pytest.fixture(scope="module")
def folder(fixtures_dir):
    return fixtures_dir / "imagebind"


def test_clips_of_sound(folder):
    stored = json.loads((folder / "frontend.json").read_text())["audio"]
    io = load_file(folder / "audio_frontend.safetensors")
    network = nnx.eval_shape(lambda: ImageBind(CONFIG, rngs=Rngs(0)))
    rate, size = CONFIG.sample_rate, CONFIG.clip_samples
    assert stored
    for name, case in stored.items():
        wave = io[f"{name}.wave16k"]
        starts = clip_starts(len(wave) / rate, CONFIG.clip_s, CONFIG.audio_clips)
        starts = [int(start * rate) for start in starts]
        assert starts == case["starts"]
        parts = [wave[start : start + size] for start in starts]
        clips = np.stack([np.pad(part, (0, size - len(part))) for part in parts])
        lengths = np.array([len(part) for part in parts], np.int32)
        spectra = jax.jit(network.spectra)(clips, lengths)
        frames = case["frames_before_padding"]
        want = io[f"{name}.clips"][:, 0]
        assert spectra.shape == want.shape
        np.testing.assert_allclose(spectra, want, atol=1e-4, err_msg=name)
        padding = -CONFIG.spectrum_mean / CONFIG.spectrum_deviation
        np.testing.assert_allclose(spectra[:, :, frames:], padding, rtol=1e-6)


def test_frames_of_video(folder):
    stored = json.loads((folder / "frontend.json").read_text())["video_frame_indices"]
    assert stored
    for name, want in stored.items():
        frames, duration = re.fullmatch(r"(\d+) frames in ([\d.]+) s", name).groups()
        got = frame_indices(
            int(frames),
            float(duration),
            clip_s=CONFIG.clip_s,
            clips=len(want),
            per_clip=CONFIG.clip_frames,
        )
        assert got.tolist() == want, name
