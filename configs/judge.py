"""A judge of the published size on frozen encoders of PE-A-Frame (docs/scoring.md).

sam-audio train-judge judge --workdir runs/judge --data.table RATINGS.jsonl \\
    --data.valid-table VALID.jsonl

Sizes and the frozen encoder are published, arXiv 2601.19702; which weights of PE-AV it has is not,
those of PE-A-Frame have the same sizes and are public. Everything else is ours. `--init-from
sam-audio-judge --encoders-from ""` goes on from the released judge.
"""

from sam_audio_jax.data.ratings import RatingsConfig
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.scorers.judge import JudgeConfig
from sam_audio_jax.train.config import CheckpointConfig, JudgeTrainConfig

CONFIG = JudgeTrainConfig(
    judge=JudgeConfig(mask_attention=True),
    data=RatingsConfig(seconds=20.0, tokenizer="answerdotai/ModernBERT-large", workers=8),
    encoders_from="pe-a-frame-large",
    checkpoint=CheckpointConfig(best_metric="pcc/utterance/overall/all"),
    mesh=MeshConfig(data=1, fsdp=-1),
)
