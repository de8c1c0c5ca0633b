"""Eight minutes of training on two CPU cores, on the embedded sound and the shipped codec.

bash launch/quickstart.sh
"""

import dataclasses

from tiny import CONFIG as TINY

CONFIG = dataclasses.replace(
    TINY,
    data=dataclasses.replace(TINY.data, mix=dataclasses.replace(TINY.data.mix, seconds=6.0)),
    checkpoint=dataclasses.replace(TINY.checkpoint, every_steps=100, every_minutes=1.0),
    optim=dataclasses.replace(TINY.optim, warmup_steps=50, ema_decay=0.99),
    max_minutes=8.0,
    log_every=10,
    eval_limit=15,
)
