"""No number of a separation is wider than float32, even where JAX allows it."""

import jax
import pytest

from sam_audio_jax import SAMAudio
from sam_audio_jax.infer import long_audio, solve
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.nn import call

SHORT = LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=1.0)


class Traced(Exception):
    """Holds the program in place of its result."""


@pytest.mark.parametrize("solver", [solve.separate_batch, long_audio.solve_windows])
def test_no_float64_in_the_programs(folder, noise_of, monkeypatch, solver):
    jitted = call.jitted

    def tracing(program, options=()):
        compiled = jitted(program, options)
        if program is not solver:
            return compiled

        def trace(*arguments):
            raise Traced(str(compiled.trace(*arguments).jaxpr))

        trace._cache_size = compiled._cache_size  # pyright: ignore[reportFunctionMemberAccess]
        return trace

    monkeypatch.setattr(call, "jitted", tracing)
    wave = noise_of(1.0 if solver is solve.separate_batch else 3.0)
    prompts = {"text": "dog barking", "spans": [("+", 0.1, 0.5)]}
    with jax.enable_x64(True):
        model = SAMAudio.from_pretrained(folder, long_audio=SHORT)
        with pytest.raises(Traced) as traced:
            model.separate(wave, sample_rate=8_000, method="midpoint", steps=2, **prompts)
    lines = str(traced.value).splitlines()
    assert len(lines) > 500
    assert not [line for line in lines if "f64[" in line]
