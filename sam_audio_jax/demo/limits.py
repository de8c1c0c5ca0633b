"""How much the page takes: of one upload, of all of them together, and for how long."""

import dataclasses
from typing import Annotated

from sam_audio_jax.bounds import Checked, Positive, PositiveCount, Range


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits(Checked, where="demo"):
    """Bounds of what visitors may do; memory and disk follow from them.

    A decoded recording has at most `most_values` float32 numbers, and one is decoded or separated
    at a time. On disk are `kept` recordings with their stems.
    """

    max_mb: Annotated[float, Range(0, 4_000, (False, True))] = 200.0  # of one uploaded file
    max_minutes: Annotated[float, Range(0, 120, (False, True))] = 10.0  # of one recording
    kept: PositiveCount = 24  # recordings; the one that was not used for longest is dropped
    kept_jobs: PositiveCount = 64  # of all recordings; likewise
    kept_s: Positive = 3_600.0  # after its last use a recording is dropped
    waiting: PositiveCount = 50  # jobs in the queue
    uploading: PositiveCount = 8  # uploads at the same time; others wait for their turn
    prompts: PositiveCount = 6  # sounds of one job
    spans: PositiveCount = 200  # of one prompt
    text: PositiveCount = 1_000  # characters of one prompt
    idle_s: Positive = 30.0  # without a byte of an upload: it is given up
    request_bytes: PositiveCount = 65_536  # of a request other than an upload

    @property
    def max_bytes(self) -> int:
        """The largest upload."""
        return round(self.max_mb * 1e6)

    @property
    def max_s(self) -> float:
        """The longest recording."""
        return self.max_minutes * 60

    @property
    def most_values(self) -> int:
        """Samples of all channels together: stereo of 96 kHz, or more channels of less."""
        return round(self.max_s * 192_000)
