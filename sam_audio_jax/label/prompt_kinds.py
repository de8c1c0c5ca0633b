"""Prompts of an input: of the stated kind, and of another kind to compare with."""

import dataclasses

from sam_audio_jax.errors import UserError
from sam_audio_jax.label.label_inputs import LabelInput
from sam_audio_jax.separator.prompts import Span

PARTS = ("text", "span", "video")
KINDS = ("text", "span", "text+span", "video", "text+video", "span+video", "text+span+video")


@dataclasses.dataclass(frozen=True)
class PromptKind:
    """What of an input the model is prompted with: `text`, `span`, `video`, joined by `+`."""

    name: str

    def __post_init__(self):
        if self.name not in KINDS:
            raise UserError(f"--prompts {self.name!r} is unknown; allowed: {', '.join(KINDS)}")

    @property
    def parts(self) -> frozenset[str]:
        """The kinds of prompts."""
        return frozenset(self.name.split("+"))

    def missing(self, one: LabelInput) -> str:
        """Why an input cannot be prompted so; "" if it can."""
        present = {
            "text": bool(one.caption),
            "span": any(token == "+" for token, _, _ in one.spans),
            "video": one.video is not None,
        }
        names = {"text": "no caption", "span": "no spans in which it sounds", "video": "no video"}
        return next((names[part] for part in PARTS if part in self.parts and not present[part]), "")

    def prompt(self, one: LabelInput) -> tuple[str, tuple[Span, ...]]:
        """The text and the spans; "" and none where they are no part of the kind."""
        text = one.caption if "text" in self.parts else ""
        return text, one.spans if "span" in self.parts else ()

    def other(self) -> "PromptKind":
        """Another kind, by which the same sound should be found.

        With both text and spans it is the text without the spans; else it is both.
        """
        both = self.parts >= {"text", "span"}
        parts = self.parts - {"span"} if both else self.parts | {"text", "span"}
        return PromptKind("+".join(part for part in PARTS if part in parts))
