"""Recordings on their way to a label: read, and separated."""

import dataclasses

import numpy as np
from jaxtyping import Float

from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.video_prompts import make_clip
from sam_audio_jax.label.label_inputs import LabelInput
from sam_audio_jax.scorers.scorer import PromptView


@dataclasses.dataclass(frozen=True, kw_only=True)
class Member:
    """One input of a group, read."""

    source: LabelInput
    item: Item  # its wave is the mixture, at the level of the model
    absent_text: str = ""  # of a sound that is not in it; "" if no score asks for it
    gain: float = 1.0  # by which the recording was brought to that level
    true_target: Float[np.ndarray, " samples"] | None = None


@dataclasses.dataclass(frozen=True)
class SolvedMember:
    """The stems of a member."""

    member: Member
    target: Float[np.ndarray, " samples"]
    residual: Float[np.ndarray, " samples"]

    @property
    def mixture(self) -> Float[np.ndarray, " samples"]:
        """The recording."""
        return self.member.item.wave

    @property
    def prompts(self) -> PromptView:
        """What is known of the sound, also where the model was not prompted by it."""
        source, view = self.member.source, self.member.item.prompts
        video = view.video
        if video is None and (clip := make_clip(source.video, source.mask, name=source.id)):
            video = clip.at
        return dataclasses.replace(view, text=source.caption, spans=source.spans, video=video)
