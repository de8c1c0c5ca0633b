"""Recordings that cannot be used: counted by reason, named in the log, and left out of the run.

A corpus of a million files has some that are damaged. They never stop a run at a fixed share of
them: a run ends when nothing is left, or at a limit that its config sets.
"""

import collections
import dataclasses
import logging
from collections.abc import Iterable

from sam_audio_jax.errors import UserError

log = logging.getLogger(__name__)

MOST_NAMED = 1_000  # that are named in the log of a process; all are counted


@dataclasses.dataclass(frozen=True)
class Refusal:
    """Why one recording, or one line of a manifest, is not used."""

    reason: str  # a word or two, to count by
    text: str  # which one, and what is wrong with it


class Refusals:
    """The refusals of one source; each is named in the log when it is added."""

    def __init__(self, refusals: Iterable[Refusal] = ()):
        self.counts: collections.Counter[str] = collections.Counter()
        self.first: dict[str, Refusal] = {}  # of each reason
        for refusal in refusals:
            self.add(refusal)

    def add(self, refusal: Refusal) -> None:
        """Counts one and names it, up to `MOST_NAMED` of them."""
        self.counts[refusal.reason] += 1
        self.first.setdefault(refusal.reason, refusal)
        if self.counts.total() <= MOST_NAMED:
            log.warning("skipped %s", refusal.text)

    def as_json(self) -> dict[str, list]:
        """Of each reason the number of refusals and the text of the first one."""
        return {reason: [count, self.first[reason].text] for reason, count in self.counts.items()}

    @classmethod
    def from_json(cls, values: dict[str, list]) -> "Refusals":
        """What `as_json` has returned; only the first of each reason is named in the log."""
        refusals = cls(Refusal(reason, text) for reason, (_, text) in values.items())
        refusals.counts = collections.Counter({name: count for name, (count, _) in values.items()})
        return refusals

    def __len__(self) -> int:
        return self.counts.total()

    def __str__(self) -> str:
        """The counts in words, the most frequent reason first: "3 truncated, 1 silent"."""
        return ", ".join(f"{count} {reason}" for reason, count in self.counts.most_common())

    def check(self, total: int, most_bad: float) -> None:
        """Raises `UserError` if all of `total` are refused, or more than a share `most_bad`.

        One is always tolerated, unless it is the only one.
        """
        if not len(self):
            return
        log.warning("%d of %d recordings are left out: %s", len(self), total, self)
        named = self.first[self.counts.most_common(1)[0][0]].text
        if len(self) >= total:
            raise UserError(f"no recording of {total} can be used ({self}): {named}")
        if len(self) > max(1, most_bad * total):
            raise UserError(
                f"{len(self)} of {total} recordings are unusable ({self}), of which "
                f"data.source.most_bad={most_bad:g} allows {most_bad:.3%}: {named}"
            )
