"""SAM Audio in JAX: separate any sound by a text, time spans or a masked object in a video."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_audio_jax.codec.codec import Codec
    from sam_audio_jax.infer.processor import SAMAudioProcessor
    from sam_audio_jax.infer.separate import SAMAudio, separate
    from sam_audio_jax.infer.stream import stream

__all__ = ["Codec", "SAMAudio", "SAMAudioProcessor", "separate", "stream"]

# Loaded on first use, so that importing the package alone does not import JAX.
_MODULES = {
    "Codec": "sam_audio_jax.codec.codec",
    "SAMAudio": "sam_audio_jax.infer.separate",
    "SAMAudioProcessor": "sam_audio_jax.infer.processor",
    "separate": "sam_audio_jax.infer.separate",
    "stream": "sam_audio_jax.infer.stream",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
