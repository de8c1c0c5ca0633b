"""What a separation takes in memory, by the compiler's account, before any weight is loaded.

Weights are counted by their shapes. The programs of a call are compiled for this machine with
shapes in place of arrays; the compiler says what each needs beside the weights. What Python, the
libraries and the compiled programs themselves take is that of this process.
"""

import dataclasses
import gc
import math
import pathlib
import resource
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sam_audio_jax.allocator import release_freed
from sam_audio_jax.codec.codec import Codec
from sam_audio_jax.infer.collate import LEAST_TOKENS, Prompts
from sam_audio_jax.infer.long_audio import (
    Layout,
    LongAudioConfig,
    TextMemory,
    WindowedRecording,
    codec_frames,
    solve_windows,
)
from sam_audio_jax.infer.solve import Networks, separate_batch, solve_latents
from sam_audio_jax.nn.call import Compiled, is_narrow
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.windows import lay_windows

COPIES = 3  # of a matrix in float32 while it is quantised: as read, transposed, scaled


@dataclasses.dataclass(frozen=True, kw_only=True)
class Peak:
    """The largest memory of one call, in bytes."""

    weights: int
    program: int  # arguments other than the weights, results and temporaries of the largest program
    waves: int  # the recording and its stems
    process: int  # Python, libraries, compiled programs
    reading: int  # weights while they are read, and what brings them to their form

    @property
    def total(self) -> int:
        """The peak of the process: when the call runs, or before that when the weights are read."""
        return self.process + max(self.reading, self.weights + self.program + self.waves)


def _leaves(network: nnx.Module) -> list[Any]:
    return jax.tree.leaves(nnx.as_pure(nnx.state(network)))


def weight_bytes(network: nnx.Module) -> int:
    """Bytes of the parameters of a network, which may be abstract."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in _leaves(network))


def reading_bytes(networks: Networks, *, whole: bool = False) -> int:
    """Bytes at most while the networks are read from a folder, one after the other.

    `whole`: text encoder and separator are read together in float32, as those of a training run
    are, and narrowed then, matrix by matrix.
    """
    codec = weight_bytes(networks.codec)
    prompted = (networks.text_encoder, networks.separator)
    # A codec is folded beside what was read of it, from float32 to float16.
    most = 3 * codec if is_narrow(networks.codec) else codec
    if whole:
        leaves = [leaf for network in prompted for leaf in _leaves(network)]
        most = max(most, codec + 4 * sum(leaf.size for leaf in leaves))
        if is_narrow(networks):
            most += max(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
        return most
    held = codec
    for network in prompted:
        held += weight_bytes(network)
        largest = max(math.prod(leaf.shape[-2:]) for leaf in _leaves(network))
        most = max(most, held + COPIES * 4 * largest)
    return most


def peak_of_call(
    networks: Networks,
    seconds: float,
    sampler: SamplerConfig,
    config: LongAudioConfig,
    *,
    read_whole: bool = False,
) -> Peak:
    """The peak of separating one mono recording by a text; `networks` are abstract.

    `read_whole` as in `reading_bytes`. Programs that were compiled before are forgotten.
    """
    jax.clear_caches()
    codec = networks.codec.config
    frames = codec.frames(round(seconds * codec.sample_rate))
    longest = config.longest(codec, networks.separator.config.dit.max_positions)
    programs = _one_shot if frames <= longest else _windowed
    needed = max(programs(networks, frames, sampler, config))
    gc.collect()
    release_freed()
    return Peak(
        weights=weight_bytes(networks),
        program=needed,
        waves=3 * 4 * frames * codec.hop,
        process=resident(),
        reading=reading_bytes(networks, whole=read_whole),
    )


def _one_shot(
    networks: Networks, frames: int, sampler: SamplerConfig, config: LongAudioConfig
) -> Iterator[int]:
    del config
    codec = networks.codec.config
    prompts = Prompts(
        wave=jnp.zeros((1, frames * codec.hop)),
        valid=jnp.ones((1, frames), bool),
        text_ids=jnp.zeros((1, LEAST_TOKENS), jnp.int32),
        text_mask=jnp.ones((1, LEAST_TOKENS), bool),
        anchors=jnp.zeros((1, frames), jnp.int32),
        noise=jnp.zeros((1, frames, 2 * codec.codebook_dim)),
    )
    compiled = Compiled(networks)
    if not compiled.saves_memory:
        yield _needed(compiled, separate_batch, prompts, sampler=sampler)
        return
    yield from _of_codec(networks, frames)
    mixture = jnp.zeros((1, frames, codec.codebook_dim))
    encoded = dataclasses.replace(prompts, mixture=mixture)
    yield _needed(compiled, solve_latents, encoded, sampler=sampler)


def _of_codec(networks: Networks, frames: int) -> Iterator[int]:
    """Of encoding and decoding a stretch of a recording."""
    codec, sizes = Compiled(networks.codec), networks.codec.config
    stretch, stems = min(codec_frames(codec), frames), 1 if codec.saves_memory else 2
    yield _needed(codec, Codec.encode, jnp.zeros((1, stretch * sizes.hop)))
    yield _needed(codec, Codec.decode, jnp.zeros((stems, stretch, sizes.codebook_dim)))


def _windowed(
    networks: Networks, frames: int, sampler: SamplerConfig, config: LongAudioConfig
) -> Iterator[int]:
    codec, separator = networks.codec.config, networks.separator.config
    yield from _of_codec(networks, frames)
    window, overlap = config.window(codec, separator.dit.max_positions)
    layout = Layout.of(lay_windows(frames, window, overlap), batch=config.batch, shards=1)
    padded, text_encoder = layout.frames(overlap), networks.text_encoder.config
    recording = WindowedRecording(
        mixture=jnp.zeros((padded, codec.codebook_dim)),
        anchors=jnp.zeros(padded, jnp.int32),
        video=None,
        text=TextMemory(
            jnp.zeros((1, LEAST_TOKENS, text_encoder.width), text_encoder.dtype),
            jnp.ones((1, LEAST_TOKENS), bool),
        ),
    )
    noise = jnp.zeros((padded, 2 * codec.codebook_dim))
    yield _needed(Compiled(networks), solve_windows, recording, layout, noise, sampler=sampler)


def _needed(network: Compiled, program: Callable[..., Any], *arrays: Any, **static: Any) -> int:
    """Bytes that a program needs beside the weights: arrays, results and temporaries."""
    memory = network.compile(program, *arrays, **static).memory_analysis()
    inputs = sum(leaf.nbytes for leaf in jax.tree.leaves(arrays))
    results = memory.output_size_in_bytes - memory.alias_size_in_bytes
    return inputs + results + memory.temp_size_in_bytes


def resident() -> int:
    """Bytes of this process that are in memory now; where that is unknown, the most so far."""
    status = pathlib.Path("/proc/self/statm")
    if status.exists():
        return int(status.read_text().split()[1]) * resource.getpagesize()
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
