"""Separates a recording with the programs of `sam-audio export MODEL --format stablehlo --out DIR`.

    python separate_stablehlo.py DIR street.wav --text "dog barking" --span + 1.0 2.5 --out out

It needs jax, flatbuffers, numpy, soundfile and safetensors, and tokenizers for a model whose
tokenizer is a file; it does not need sam_audio_jax. The chapter docs/export.md explains it. What
the package does beyond this: typographic quotes and dashes as plain ones, other sample rates,
recordings longer than 30 s (here the whole is solved at once), several channels, video, candidates,
refinement.
"""

import argparse
import json
import pathlib
import unicodedata

import jax
import numpy as np
import soundfile
from jax import export
from safetensors.numpy import load_file


def load(folder):
    """The description of a model and its programs, as functions of their inputs by name."""
    model = json.loads((folder / "export.json").read_text())
    weights = load_file(folder / "weights.safetensors")

    def program(entry):
        exported = export.deserialize(bytearray((folder / entry["file"]).read_bytes()))
        prefix = entry["weights"]
        own = {k.removeprefix(prefix): w for k, w in weights.items() if k.startswith(prefix)}
        own = jax.device_put(own)
        run = jax.jit(exported.call)
        return lambda **inputs: run(own, inputs)

    return model, {name: program(entry) for name, entry in model["programs"].items()}


def token_ids(model, folder, text):
    """Ids of a text, `[1, tokens]`."""
    tokenizer = model["tokenizer"]
    if model["normalizes_text"]:  # lower case, single spaces, no full stop at the end
        plain = unicodedata.normalize("NFKC", text.lower()).lower()  # of which NFKC makes capitals
        text = " ".join(plain.split()).rstrip(". ")
    if tokenizer["kind"] == "bytes":
        ids = [byte + tokenizer["offset"] for byte in text.encode()][: tokenizer["most"] - 1]
        return np.array([[*ids, tokenizer["end"]]], np.int32)
    from tokenizers import Tokenizer

    reader = Tokenizer.from_file(str(folder / tokenizer["file"]))
    reader.enable_truncation(tokenizer["most"])
    return np.array([reader.encode(text).ids], np.int32)


def level(wave, rate, usual_db):
    """Gain and offset that bring a recording to the level of the model's training data.

    RMS of the cells of 10 ms that are neither silence nor a click, and that the loudest sample,
    clicks aside, stays below full scale.
    """
    if usual_db is None:
        return 1.0, 0.0
    size = max(1, round(0.01 * rate))
    cells = [wave[start : start + size].astype(float) for start in range(0, len(wave), size)]

    def measure(offset):
        rms = np.array([np.sqrt(np.mean(np.square(cell - offset))) for cell in cells])
        peaks = np.array([np.abs(cell - offset).max() for cell in cells])
        lasts = slide(slide(rms, np.min), np.max)  # what sounds for five cells or more
        clicks = rms > lasts * 10**0.5
        rest = rms[~clicks].max(initial=0.0)
        if clicks.sum() > max(0.01 * len(cells), 5) or rms.max() > rest * 1e3:
            clicks[:] = False
        rms, peaks = rms[~clicks], peaks[~clicks]
        active = rms > rms.max() * 1e-2
        return (np.sqrt(np.mean(np.square(rms[active]))) if active.any() else 0.0), peaks.max()

    offset = np.mean([cell.mean() for cell in cells])
    rms, peak = measure(offset)
    if abs(offset) <= 0.05 * rms:
        offset = 0.0
        rms, peak = measure(offset)
    return min(10 ** (usual_db / 20) / rms, 1 / peak), offset


def slide(values, reduce):
    """The least or largest of each value and the two on each side of it."""
    padded = np.pad(values, 2, mode="edge")
    return reduce(np.lib.stride_tricks.sliding_window_view(padded, 5), axis=-1)


def anchors(model, spans, frames):
    """The anchor of each frame; both ends of a span are rounded up to a frame."""
    ids = np.full((1, frames), model["anchors"]["<null>"], np.int32)
    rate = model["sample_rate"] / model["hop"]
    for token, start, end in spans:
        first, last = (int(np.ceil(float(time) * rate)) for time in (start, end))
        ids[0, first:last] = model["anchors"][token]
    return ids


def solve(velocity, noise, steps):
    """Integrates the flow from noise to latents by the steps that export.json lists."""
    x, slopes = noise, []
    for step in steps:
        for evaluation in step["evaluate"]:
            state = x + sum(factor * slopes[number] for number, factor in evaluation["add"])
            time, size = (np.full(len(x), evaluation[k], np.float32) for k in ("time", "size"))
            slopes.append(velocity(state=state, time=time, step_size=size))
        x = x + sum(factor * slopes[number] for number, factor in step["add"])
    return x


def separate(folder, wave, text, spans, seed):
    """Target and residual, `[samples]`, of a mono recording at the model's rate."""
    model, programs = load(folder)
    gain, offset = level(wave, model["sample_rate"], model["level_db"])
    levelled = np.clip((wave - np.float32(offset)) * np.float32(gain), -1, 1)
    whole = np.pad(levelled, (0, -len(wave) % model["hop"]), mode="reflect")
    mixture = programs["encoder"](wave=whole[None].astype(np.float32))
    _, frames, channels = mixture.shape
    ids = token_ids(model, folder, text)
    mask = np.ones(ids.shape, bool)
    conditions = {
        "mixture": mixture,
        "text": programs["text_encoder"](ids=ids, mask=mask),
        "text_mask": mask,
        "anchors": anchors(model, spans, frames),
        "valid": np.ones((1, frames), bool),
    }
    needed = {one["name"]: one["shape"] for one in model["programs"]["velocity"]["inputs"]}
    if "video" in needed:
        conditions["video"] = np.zeros((1, frames, needed["video"][-1]), np.float32)

    def velocity(**of_step):  # only models for few steps take the size of a step
        own = {name: value for name, value in of_step.items() if name in needed}
        return programs["velocity"](**own, **conditions)

    noise = np.random.default_rng(seed).standard_normal((1, frames, 2 * channels), np.float32)
    latents = solve(velocity, noise, model["sampler"]["solver_steps"])
    stems = np.moveaxis(np.asarray(latents).reshape(frames, 2, channels), 1, 0)
    waves = np.asarray(programs["decoder"](latents=stems))[:, : len(wave)]
    return waves / np.float32(gain)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("recording")
    parser.add_argument("--text", default="")
    parser.add_argument(
        "--span", nargs=3, action="append", default=[], metavar=("SIGN", "START", "END")
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("out"))
    options = parser.parse_args()
    wave, rate = soundfile.read(options.recording, dtype="float32")
    needed = json.loads((options.folder / "export.json").read_text())["sample_rate"]
    if wave.ndim != 1 or rate != needed:
        parser.error(f"{options.recording} must be mono at {needed} Hz, resample it first")
    if len(wave) == 0 or np.ptp(wave) == 0:  # it has no level
        parser.error(f"{options.recording} is silent")
    stems = separate(options.folder, wave, options.text, options.span, options.seed)
    options.out.mkdir(parents=True, exist_ok=True)
    for name, stem in zip(("target", "residual"), stems, strict=True):
        soundfile.write(options.out / f"{name}.wav", stem, rate, subtype="FLOAT")


if __name__ == "__main__":
    main()
