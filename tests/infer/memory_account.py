"""Run by test_memory.py: the account of calls, in a process of its own.

Not a test file. Arguments: a model folder, the dtype in which it is kept, the
longest recording in seconds that is solved in one piece, seconds of each call. Prints the peaks as
a JSON list. What a separation by text does not need must not have been imported.
"""

import dataclasses
import json
import sys

from sam_audio_jax.convert.load import describe_model
from sam_audio_jax.infer import memory
from sam_audio_jax.infer.long_audio import LongAudioConfig
from sam_audio_jax.infer.solve import Networks
from sam_audio_jax.nn.storage import Storage
from sam_audio_jax.separator.flow import SamplerConfig


def main(folder: str, dtype: Storage, one_shot: str, *seconds: str) -> None:
    model = describe_model(folder, dtype)
    networks = Networks(model.codec, model.prompted.text_encoder, model.prompted.separator)
    sampler = SamplerConfig(method="euler", steps=2)
    config = LongAudioConfig(window_s=1.0, overlap_s=0.25, one_shot_s=float(one_shot))
    peaks = [memory.peak_of_call(networks, float(s), sampler, config) for s in seconds]
    assert not {"scipy.signal", "pyloudnorm", "orbax.checkpoint"} & set(sys.modules)
    print(json.dumps([dataclasses.asdict(peak) for peak in peaks]))


if __name__ == "__main__":
    main(*sys.argv[1:])
