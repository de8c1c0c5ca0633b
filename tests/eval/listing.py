"""Fixed mixtures made of seeded noises and tones, and a model that knows the answers."""

import json
import types

import numpy as np

from sam_audio_jax.infer.separate import SAMAudio

RATE = 8_000


def event(clip, *, start=0, samples=RATE, offset=0, gain=1.0):
    return {"clip": clip, "start": start, "samples": samples, "offset": offset, "gain": gain}


def listed(name, setting, caption, other, target, residual, *, seconds=2.0, **fields):
    """One line of mixtures.jsonl; spans follow from the events."""
    spans = [[e["offset"] / RATE, (e["offset"] + e["samples"]) / RATE] for e in target]
    line = {"id": name, "setting": setting, "caption": caption, "residual_captions": other}
    line |= {"samples": round(seconds * RATE), "sample_rate": RATE, "spans": spans}
    return line | {"target": target, "residual": residual} | fields


def write_lines(path, entries):
    path.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


class Oracle(SAMAudio):
    """Answers with the stem that was asked for, some of the other, and a little noise.

    `deaf`: always the target. `broken`: NaN.
    """

    def __init__(self, codec, sounds, *, deaf=False, broken=False):
        self.networks = types.SimpleNamespace(codec=codec)
        self.known = {sound.mixture.tobytes(): sound for sound in sounds}
        self.deaf, self.broken = deaf, broken
        self.calls = []

    def separate(self, audio, text=None, spans=None, *, sample_rate=None, seed=0, **options):
        self.calls.append((len(audio), len(audio[0]), seed, options))
        return [self._answer(*asked) for asked in zip(audio, text, spans, strict=True)]

    def _answer(self, wave, text, spans):
        sound = self.known[wave.tobytes()]
        marks = None if spans is None else tuple((start, end) for _, start, end in spans)
        right = sound.item.caption == text if text is not None else sound.item.spans == marks
        stems = [sound.target, sound.residual]
        if not right and not self.deaf:
            stems.reverse()
        leak = 0.1 * stems[1] + (np.nan if self.broken else 0.0)
        return types.SimpleNamespace(target=stems[0] + leak, residual=stems[1] - leak)
