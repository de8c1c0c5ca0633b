"""A tiny ImageBind: its config and random weights under the reference's names."""

import numpy as np

from sam_audio_jax.convert.imagebind import imagebind_table
from sam_audio_jax.scorers.imagebind import ImageBindConfig, TrunkConfig

TINY = ImageBindConfig(
    vision=TrunkConfig(width=12, depth=2, heads=3, mlp=10),
    audio=TrunkConfig(width=8, depth=3, heads=2, mlp=6, extra_key=True, norm_in=False),
    output=5,
    image_size=8,
    image_patch=4,
    clip_s=0.1,
    sample_rate=2_000,
    window=50,
    hop=20,
    transform=64,
    bands=14,
    high_hz=1_000.0,
    spectrum_frames=11,
    audio_patch=5,
    audio_stride=3,
)


def random_state() -> dict[str, np.ndarray]:
    """Kernels scaled by their fan-in, scales near 1, biases and tokens of the same order."""
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        normal = rng.standard_normal(shape)
        if len(shape) > 1 and "weight" in name:
            return normal / np.sqrt(np.prod(shape[1:]))
        return 1 + 0.1 * normal if name.endswith("weight") else 0.5 * normal

    shapes = imagebind_table(TINY).shapes().items()
    return {name: draw(name, shape).astype(np.float32) for name, shape in shapes}
