"""Which captions are near each other, by the words that they share.

Two uses: a residual that is nearly what is prompted for teaches a model to tell near classes apart,
and a prompt for a sound that is *not* in a mixture must not be true of one that is. Both read words
alone, so that they hold for any captions; what they cannot see is that two different words mean
one thing ("blast", "explosion"), unless `SAME` says so.
"""

import collections
import functools
import re
from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float, Int

from sam_audio_jax.encoders.text_form import normalize

WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
# Words that do not say what sounds.
STOP = frozenset(
    WORD.findall(
        "a an the of in on at to from into with by and or for over through its his her their some "
        "someone something is are being be been sound sounds noise noises playing played audio"
    )
)
# People are compared by gender alone: a person may be a man or a woman, a boy may pass for a woman.
MALE = frozenset(WORD.findall("man men male guy"))
FEMALE = frozenset(WORD.findall("woman women female lady girl girls"))
PEOPLE = frozenset(
    WORD.findall("person people human voice voices boy boys child children kid kids")
)
SPEAK = "speak"
GENDERS = frozenset({"man", "woman"})
VOICES = frozenset({*GENDERS, "person", SPEAK})  # of which two may sound at once
# Words for one thing; forms of one word ("barking", "barks") need no row, endings are taken away.
SAME = {
    **dict.fromkeys(
        WORD.findall("speech speaks speaking talk talking talks chatter chattering"), SPEAK
    ),
    **dict.fromkeys(WORD.findall("music song tune melody"), "music"),
    **dict.fromkeys(WORD.findall("blast explosion exploding explodes bomb"), "explode"),
    **dict.fromkeys(WORD.findall("gunshot gunfire gun shotgun shot shots"), "gun"),
    **dict.fromkeys(WORD.findall("fired firing fires shooting shoots"), "shoot"),
    **dict.fromkeys(WORD.findall("sea ocean surf waves"), "sea"),
    **dict.fromkeys(WORD.findall("airplane aeroplane aircraft plane jet"), "plane"),
    **dict.fromkeys(WORD.findall("stone stones rock rocks"), "stone"),
    **dict.fromkeys(WORD.findall("hen hens chicken rooster"), "chicken"),
    **dict.fromkeys(WORD.findall("cow cows cattle bull"), "cow"),
    **dict.fromkeys(WORD.findall("sheep ram lamb"), "sheep"),
    **dict.fromkeys(WORD.findall("dog dogs puppy"), "dog"),
    **dict.fromkeys(WORD.findall("cat cats kitten"), "cat"),
    **dict.fromkeys(WORD.findall("laugh laughs laughing laughter"), "laugh"),
    **dict.fromkeys(WORD.findall("clap clapping applause applauding handclap"), "clap"),
    **dict.fromkeys(WORD.findall("footsteps footstep walking walk steps"), "footstep"),
    **dict.fromkeys(WORD.findall("car cars vehicle automobile"), "car"),
    **dict.fromkeys(WORD.findall("ship ships boat"), "ship"),
    **dict.fromkeys(WORD.findall("struck striking strike hitting hit hits banging"), "hit"),
}
ENDINGS = ("ings", "ing", "ers", "er", "ed", "es", "s", "e")  # longest first
SHORTEST = 3  # letters that are left of a word without its ending


@functools.lru_cache(maxsize=100_000)
def words(phrase: str) -> frozenset[str]:
    """The words of a phrase that say what sounds, without endings: "dogs barking" -> dog, bark."""
    found = WORD.findall(normalize(phrase))
    return frozenset(_stem(word) for word in found if word not in STOP)


def _stem(word: str) -> str:
    """A word without its ending; a doubled consonant before it is single ("running", "runs")."""
    for kind, members in (("man", MALE), ("woman", FEMALE), ("person", PEOPLE)):
        if word in members:
            return kind
    if word in SAME:
        return SAME[word]
    for ending in ENDINGS:
        stem = word.removesuffix(ending)
        if stem != word and len(stem) >= SHORTEST and not word.endswith("ss"):
            doubled = stem[-1] == stem[-2] and stem[-1] not in "lsz"
            stem = stem[:-1] if doubled else stem
            return SAME.get(stem, stem)
    return word


def similarity(one: str, other: str) -> float:
    """Shared words over all words of two phrases: 1 for the same words, 0 for none in common."""
    a, b = words(one), words(other)
    return len(a & b) / len(a | b) if a | b else 1.0


def implied(phrase: str, by: str) -> bool:
    """Whether a phrase is true of all that is called `by`, as "dog" is of "dog barking".

    "person speaking" is of "man speaking french", but not the other way round.
    """
    missing = words(phrase) - words(by)
    return not missing or (missing == {"person"} and bool(words(by) & GENDERS))


def may_be_same(one: str, other: str) -> bool:
    """Whether two phrases may be true of one sound because one has all words of the other."""
    a, b = words(one), words(other)
    if "person" in a | b:
        a, b = (frozenset("person" if w in GENDERS else w for w in found) for found in (a, b))
    return a <= b or b <= a


class Present:
    """What is true of the sounds of a mixture, to tell which phrases are not.

    Each of `claims` has the phrases that are true of one sound; the finest of them count most. Of
    "speech" alone any voice may be true, of "speech" and "man speaking french" no woman's.
    """

    def __init__(self, *claims: Collection[str]):
        self.phrases = frozenset().union(*claims)
        self._finest = [
            phrase
            for some in claims
            for phrase in some
            if not any(implied(phrase, by) and not implied(by, phrase) for by in some)
        ]
        self._words = frozenset().union(*map(words, self.phrases)) - VOICES

    def may_include(self, phrase: str) -> bool:
        """Whether a phrase might be true of one of the sounds.

        Any word in common makes it so, but for words of people and speaking: "wind howling" may be
        true of what is called "wind blowing". Two voices differ by gender or language.
        """
        return bool(words(phrase) & self._words) or self.may_mean(phrase)

    def may_mean(self, phrase: str) -> bool:
        """Whether a phrase may be true of one of the sounds as it is called.

        A word in common is not enough: "dog barking" cannot mean what is called "dog howling".
        """
        return any(implied(phrase, one) for one in self.phrases) or any(
            may_be_same(phrase, one) for one in self._finest
        )


class NearCaptions:
    """The captions of a list that are near a given one; an index of words keeps it fast."""

    def __init__(self, captions: Sequence[str]):
        self.captions = list(captions)
        self._with_word: dict[str, list[int]] = collections.defaultdict(list)
        for number, caption in enumerate(self.captions):
            for word in words(caption):
                self._with_word[word].append(number)
        self._kept: dict[str, tuple[Int[np.ndarray, " near"], Float[np.ndarray, " near"]]] = {}

    def of(self, caption: str) -> tuple[Int[np.ndarray, " near"], Float[np.ndarray, " near"]]:
        """Numbers of the near captions and the upper bounds of their shares, which end at 1.

        A caption is as likely as it is similar. One that has all words of the other, or the other
        way round, is left out: it may be true of the same sound. Both are empty where none is near.
        """
        if caption not in self._kept:
            numbers = {n for word in words(caption) for n in self._with_word.get(word, ())}
            near = [n for n in sorted(numbers) if not may_be_same(caption, self.captions[n])]
            likeness = np.array([similarity(caption, self.captions[n]) for n in near])
            bounds = np.cumsum(likeness / likeness.sum()) if near else likeness
            self._kept[caption] = np.array(near, np.int64), bounds
        return self._kept[caption]

    def called(self, phrase: str) -> list[int]:
        """Numbers of the captions of which a phrase is true, as "dog" is of "dog barking"."""
        lists = [self._with_word.get(word, []) for word in words(phrase)]
        shortest = min(lists, key=len, default=[])
        return [n for n in shortest if implied(phrase, self.captions[n])]

    def draw(self, caption: str, rng: np.random.Generator) -> int | None:
        """The number of a near caption, as likely as it is similar; None where none is near."""
        numbers, bounds = self.of(caption)
        if not len(numbers):
            return None
        which = int(np.searchsorted(bounds, rng.random(), side="right"))
        return int(numbers[min(which, len(numbers) - 1)])
