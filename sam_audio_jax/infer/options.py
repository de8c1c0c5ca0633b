"""How a separation runs: solver, noise, candidates, and what is done with the stems.

`SeparateOptions` is the one declaration: Python (`SAMAudio.separate`), the settings.json of a
manifest's run (`to_dict`) and the command line (`field.metadata`) follow its fields.
"""

import dataclasses
import types
from collections.abc import Mapping
from typing import Annotated, Any, get_args

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.bounds import Checked, Range, Seed
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.inputs import draw_noise
from sam_audio_jax.scorers.scorer import Scorer
from sam_audio_jax.separator.flow import (
    Method,
    SamplerConfig,
    TimeGrid,
    checked_grid,
    checked_method,
)
from sam_audio_jax.video.masks import KEEP

SolverSteps = Annotated[int, Range(1, 100_000)]
CandidateCount = Annotated[int, Range(1, 1_000)]
REFINEMENTS = (None, "wiener")


def _flag(text: str, **argument: Any) -> Mapping[str, Any]:
    """Returns metadata of a field that is a flag; `argument`: argparse's, or `at_least`."""
    return types.MappingProxyType({"flag": {"help": text} | argument})


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeparateOptions(Checked, where=""):
    """Validated options of one `separate` call; shared by all its items.

    Raises UserError for a value that is not allowed.
    """

    method: str | None = dataclasses.field(  # None: what the model's config says
        default=None, metadata=_flag("of the solver", choices=get_args(Method))
    )
    steps: SolverSteps | None = dataclasses.field(  # None: what the model's config says
        default=None, metadata=_flag("of the solver", at_least=1)
    )
    grid: str | None = dataclasses.field(  # None: what the model's config says
        default=None, metadata=_flag("of the solver's steps", choices=get_args(TimeGrid))
    )
    seed: Seed = dataclasses.field(  # of the noise that no caller passes
        default=0,
        metadata=_flag("of the noise: equal seeds, equal bytes", at_least=0),
    )
    # Solves per item, of which the one is kept whose target the scorer ranks first.
    candidates: CandidateCount = dataclasses.field(
        default=1, metadata=_flag("solves, of which the best is kept", at_least=1)
    )
    predict_spans: bool = dataclasses.field(  # for items without spans
        default=False, metadata=_flag("find the spans of texts without any", action="store_true")
    )
    # "wiener" divides the recording itself in the proportion of the generated stems.
    refine: str | None = dataclasses.field(
        default=None,
        metadata=_flag("divide the recording itself: all channels, its rate", choices=("wiener",)),
    )
    # The stems of a recording's texts add up to it: one mask for each divides the recording.
    joint: bool = False
    rest: bool = dataclasses.field(  # `joint`, with one stem more
        default=False,
        metadata=_flag("one stem more: what no text took of the recording", action="store_true"),
    )
    unprompted: bool = dataclasses.field(  # for items without text, spans and video
        default=False,
        metadata=_flag("let the model choose where nothing is asked for", action="store_true"),
    )
    mask_keeps: str = dataclasses.field(  # what of a video stays visible: object or background
        default="object", metadata=_flag("what of the video stays visible", choices=KEEP)
    )
    # None, "random" as the reference always does, or bits: `[bits]` or `[waves, bits]`.
    watermark: Any = None
    scorer: Scorer | None = None  # ranks two or more candidates; None: the model's. Not saved.

    def __post_init__(self):
        super().__post_init__()
        self.sampler(SamplerConfig())
        if self.rest:
            object.__setattr__(self, "joint", True)
        if self.joint and self.refine is None:  # only shares of the recording add up to it
            object.__setattr__(self, "refine", "wiener")
        if self.refine not in REFINEMENTS:
            raise UserError(f"refine={self.refine!r} is unknown; allowed: 'wiener' or None")
        if self.refine and self.watermark is not None:
            raise UserError("refined stems are the recording's own: they carry no watermark")

    def sampler(self, default: SamplerConfig) -> SamplerConfig:
        """Returns the solver's settings, those of `default` where these options have none."""
        return SamplerConfig(
            method=default.method if self.method is None else checked_method(self.method),
            steps=default.steps if self.steps is None else self.steps,
            grid=default.grid if self.grid is None else checked_grid(self.grid),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns the options as plain JSON values, without the scorer."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        del fields["scorer"]
        if self.watermark is not None and not isinstance(self.watermark, str):
            fields["watermark"] = np.asarray(self.watermark).tolist()
        return fields

    def noise(self, frames: int, state: int) -> Float[np.ndarray, "candidates frames state"]:
        """Draws x(0) from the seed, the same for every item; a longer one starts with it."""
        return np.stack([draw_noise(self.seed, frames, state, n) for n in range(self.candidates)])

    def messages(self, waves: int, bits: int) -> Int[np.ndarray, "waves bits"] | None:
        """Returns the watermark of `waves` decoded waves, in decoding order; None: no watermark.

        `"random"` is what the reference does at every call; here the seed decides. Raises UserError
        if the bits do not fit the codec.
        """
        if self.watermark is None:
            return None
        if isinstance(self.watermark, str) and self.watermark == "random":
            return np.random.default_rng(self.seed).integers(0, 2, (waves, bits), np.int32)
        message = np.asarray(self.watermark)
        fits = message.shape in ((bits,), (waves, bits)) and message.dtype.kind in "biuf"
        if not fits or not np.isin(message, (0, 1)).all():
            raise UserError(
                f"watermark must be None, 'random' or {bits} bits for all or each of {waves} "
                f"waves, got {message.dtype} of shape {message.shape}"
            )
        return np.broadcast_to(message, (waves, bits)).astype(np.int32)


FIELDS = tuple(field.name for field in dataclasses.fields(SeparateOptions))
FLAGS: dict[str, dict[str, Any]] = {  # name -> arguments of the command line's flag
    field.name: {"default": field.default} | dict(field.metadata["flag"])
    for field in dataclasses.fields(SeparateOptions)
    if "flag" in field.metadata
}
