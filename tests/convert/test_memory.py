"""What the host holds while a checkpoint is loaded, copied and written."""

import filecmp
import json
import os
import pathlib
import subprocess
import sys

import pytest
from safetensors import safe_open

from tests.convert.synthetic import write_synthetic

HERE = pathlib.Path(__file__).parent
SCRIPT = HERE / "peak_memory.py"
DEVICES = 4
MIB = 2**20
SLACK = 24 * MIB  # allocator, tracing and file buffers; a tenth of the model


def settings(width: int, depth: int) -> tuple[dict, dict]:
    codec = {"encoder_dim": 4, "encoder_rates": [4], "latent_dim": 8, "decoder_dim": 8}
    codec |= {"decoder_rates": [4], "codebook_dim": 8}
    transformer = {"dim": width, "context_dim": width, "n_heads": 8, "n_layers": depth}
    transformer |= {"out_channels": 16, "multiple_of": 64}
    config = {"in_channels": 48, "audio_codec": codec, "transformer": transformer}
    text = {"dim": 64, "name": "byt5"}
    t5 = {"vocab_size": 384, "d_model": 64, "d_kv": 16, "num_heads": 4, "d_ff": 128}
    return config | {"text_encoder": text}, t5 | {"num_layers": 2}


@pytest.mark.skipif(not SCRIPT.exists() or sys.platform != "linux", reason="reads /proc")
def test_a_model_is_never_held_twice(tmp_path):
    """Loading holds the model and 1.3 times the largest tensor; copying and saving hold less."""
    tower = {"vision_encoder.model.token_embedding.weight": (4 * 1024, 1024)}
    for name, width, depth in (("small", 64, 2), ("large", 768, 6)):
        config, text = settings(width, depth)
        write_synthetic(tmp_path / name, config, text, rest=tower)
    with safe_open(tmp_path / "large" / "checkpoint.safetensors", "numpy") as file:
        sizes = {n: 4 * int(_count(file.get_slice(n).get_shape())) for n in file.keys()}  # noqa: SIM118
    held = sum(size for name, size in sizes.items() if not name.startswith("vision_encoder."))
    largest = max(sizes.values())
    assert held > 12 * largest  # else a second copy could hide behind one tensor
    run = subprocess.run(
        [sys.executable, SCRIPT, *(tmp_path / name for name in ("small", "large", "copy"))],
        capture_output=True,
        text=True,
        env=os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}"},
    )
    assert run.returncode == 0, run.stderr
    measured = json.loads(run.stdout)
    one = 1.3 * largest + SLACK
    assert 0.9 * held < measured["loading"] < held + one, measured
    assert measured["copying"] < one, measured
    assert measured["saving"] < one, measured
    assert measured["shards"] == DEVICES
    assert measured["moved"] == 0, "device_put copied arrays that had the right sharding"
    assert measured["finite"]
    for copy in ("copy", "copy.saved"):
        for name in ("checkpoint.safetensors", "t5/model.safetensors"):
            assert filecmp.cmp(tmp_path / "large" / name, tmp_path / copy / name, shallow=False)


def _count(shape) -> int:
    count = 1
    for size in shape:
        count *= size
    return count
