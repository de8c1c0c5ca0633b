"""Fixed mixtures made of seeded noises and tones, and a model that knows the true stems."""

import json
import types

import numpy as np
from flax import nnx

from sam_audio_jax import audio
from sam_audio_jax.infer.refine import DEFAULT
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.separator.flow import SamplerConfig

RATE = 8_000


def event(clip, *, start=0, samples=RATE, offset=0, gain=1.0):
    return {"clip": clip, "start": start, "samples": samples, "offset": offset, "gain": gain}


def listed(name, setting, caption, other, target, residual, *, seconds=2.0, **fields):
    """One line of mixtures.jsonl; spans follow from the events."""
    spans = [[e["offset"] / RATE, (e["offset"] + e["samples"]) / RATE] for e in target]
    line = {"id": name, "setting": setting, "caption": caption, "residual_captions": other}
    line |= {"samples": round(seconds * RATE), "sample_rate": RATE, "spans": spans}
    return line | {"target": target, "residual": residual} | fields


def three_lines():
    """Three mixtures: two sounds apart in time, two sounds all the time, three sounds."""
    whole = 2 * RATE
    return [
        listed("a", "sfx", "hiss", ["hum"], [event("hiss")], [event("hum", samples=whole)]),
        listed(
            "b",
            "speech",
            "hum",
            ["hiss"],
            [event("hum", samples=whole, gain=0.5)],
            [event("hiss", samples=whole)],
        ),
        listed(
            "c",
            "sfx",
            "beep",
            ["hum", "hiss"],
            [event("beep", samples=RATE // 2, offset=RATE)],
            [event("hum"), event("hiss", start=100, offset=4_000, gain=0.25)],
        ),
    ]


def make_folder(folder, lines):
    """Clips, manifest.jsonl and mixtures.jsonl."""
    rng, time = np.random.default_rng(0), np.arange(3 * RATE) / RATE
    waves = {
        "hiss": 0.1 * rng.standard_normal(len(time)),
        "hum": 0.2 * np.sin(2 * np.pi * 110 * time),
        "beep": 0.3 * np.sin(2 * np.pi * 1_700 * time),
    }
    manifest = []
    for name, wave in waves.items():
        audio.write_wav(folder / f"{name}.wav", wave[None], RATE)
        manifest.append(
            {
                "id": name,
                "path": f"{name}.wav",
                "caption": name,
                "category": "sfx",
                "source_id": name,
                "duration": 3.0,
                "license": "CC0-1.0",
                "split": "valid",
            }
        )
    write_lines(folder / "manifest.jsonl", manifest)
    write_lines(folder / "mixtures.jsonl", lines)


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


class Oracle(SAMAudio):
    """Returns the stem that was prompted, with some leakage of the other.

    If `ignores_prompts`, it always returns the target; if `broken`, NaN; if `silent`, no target.
    """

    def __init__(self, codec, mixtures, *, ignores_prompts=False, broken=False, silent=False):
        self.pipeline = types.SimpleNamespace(
            networks=nnx.Dict(codec=codec),
            sample_rate=codec.config.sample_rate,
            level_db=None,
            refinement=DEFAULT,
            sampler=SamplerConfig(),
        )
        self.known = {one.mixture.tobytes(): one for one in mixtures}
        self.ignores_prompts, self.broken, self.silent = ignores_prompts, broken, silent
        self.calls = []

    def separate(self, audio, text=None, spans=None, *, sample_rate=None, seed=0, **options):
        self.calls.append((len(audio), len(audio[0]), seed, options))
        return [self._stems(*one) for one in zip(audio, text, spans, strict=True)]

    def _stems(self, wave, text, spans):
        known = self.known[wave.tobytes()]
        ranges = None if spans is None else tuple((start, end) for _, start, end in spans)
        right = known.item.caption == text if text is not None else known.item.spans == ranges
        stems = [known.target, known.residual]
        if not right and not self.ignores_prompts:
            stems.reverse()
        leak = 0.1 * stems[1] + (np.nan if self.broken else 0.0)
        if self.silent:
            return Stems(0 * known.mixture, known.mixture, known.sample_rate)
        return Stems(stems[0] + leak, stems[1] - leak, known.sample_rate)
