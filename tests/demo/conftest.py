"""One tiny random model and one server for all tests here."""

import io

import av
import numpy as np
import pytest
import scipy.io.wavfile

from sam_audio_jax import SAMAudio
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import PromptedSeparator
from tests import tiny
from tests.demo import http
from tests.video.clips import greys

LIMITS = Limits(max_mb=1.0, max_minutes=0.2, idle_s=1.0)
SECONDS = 1.0


def make_model(**settings) -> SAMAudio:
    """A model of random numbers whose prompts all matter; `settings` are those of `Pipeline`."""
    prompted = tiny.filled(lambda: PromptedSeparator(tiny.TEXT, tiny.SEPARATOR, rngs=Rngs(0)))
    codec = tiny.filled(lambda: Codec(tiny.CODEC, rngs=Rngs(0)))
    codec.decoder.out.scale[...] *= 0.1  # waves well below full scale
    sampler = SamplerConfig(method="euler", steps=2)
    return SAMAudio(codec, prompted, tokenizer_for("byt5"), sampler=sampler, **settings)


@pytest.fixture(scope="session")
def model():
    return make_model()


@pytest.fixture(scope="session")
def client(model):
    with http.running(model, LIMITS) as found:
        yield found


@pytest.fixture(scope="session")
def wave():
    """A stereo recording at twice the codec's rate, on the grid of 16-bit files."""
    noise = np.random.default_rng(0).standard_normal((2, round(SECONDS * 16_000)))
    return (np.round(0.1 * noise * 2**15) / 2**15).astype(np.float32)


def wav_bytes(wave: np.ndarray, sample_rate: int = 16_000) -> bytes:
    file = io.BytesIO()
    scipy.io.wavfile.write(file, sample_rate, np.round(wave.T * 2**15).astype(np.int16))
    return file.getvalue()


@pytest.fixture(scope="session")
def street(wave):
    """The recording as a file of 16 bits."""
    return wav_bytes(wave)


@pytest.fixture(scope="session")
def film(wave, tmp_path_factory):
    """A video of ten grey frames, each brighter than the one before, with the recording."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as container:
        picture = container.add_stream("ffv1", rate=10)
        picture.height, picture.width, picture.pix_fmt = 24, 32, "bgr0"
        sound = container.add_stream("pcm_s16le", rate=16_000, layout="stereo")
        for frame in greys(10):
            shown = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            container.mux(picture.encode(shown))
        samples = np.round(wave.T * 2**15).astype(np.int16).reshape(1, -1)
        played = av.AudioFrame.from_ndarray(samples, "s16", "stereo")
        played.sample_rate = 16_000
        container.mux(sound.encode(played))
        for stream in (picture, sound):
            container.mux(stream.encode(None))
    return path.read_bytes()
