"""The smallest separator experiment: compiles in seconds, learns nothing of use.

The option `--data.source.manifests` names its data.
"""

from sam_audio_jax.codec.codec import CodecConfig
from sam_audio_jax.data.config import DataConfig, MixConfig, PromptConfig
from sam_audio_jax.encoders.t5 import T5Config
from sam_audio_jax.separator.dit import DitConfig
from sam_audio_jax.separator.flow import SamplerConfig
from sam_audio_jax.separator.model import SeparatorConfig
from sam_audio_jax.train.config import CheckpointConfig, OptimConfig, TrainConfig

CONFIG = TrainConfig(
    codec=CodecConfig(
        sample_rate=800,
        encoder_dim=2,
        encoder_rates=(4, 8),
        latent_dim=8,
        decoder_dim=8,
        decoder_rates=(8, 4),
        codebook_dim=4,
        watermark_rates=(),
    ),
    codec_checkpoint="random",
    text=T5Config(vocab_size=384, width=8, head_dim=4, heads=2, mlp=8, depth=1),
    train_text=True,
    separator=SeparatorConfig(
        dit=DitConfig(depth=2, width=8, heads=2, mlp=8, frequency_width=8, dtype="float32"),
        channels=4,
        text_width=8,
        video_width=4,
        anchor_width=4,
    ),
    data=DataConfig(
        mix=MixConfig(seconds=1.0, recipes=(("sfx", "sfx", 1.0),)),
        prompts=PromptConfig(text_tokens=8),
    ),
    optim=OptimConfig(peak_lr=1e-3, warmup_steps=10),
    checkpoint=CheckpointConfig(every_steps=5, keep_last=2),
    sampler=SamplerConfig(method="euler", steps=2),
    batch=8,
    steps=300,
    log_every=10,
)
