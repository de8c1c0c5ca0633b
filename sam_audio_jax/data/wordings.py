"""Other wordings of a caption: people do not ask in the words of a data set.

A caption names a source and what it does: "dog barking", "splash of water", "violin playing". The
rules here keep its meaning: templates around it, the participle in front ("barking dog"), and words
for the same thing. Capitals and full stops need no rule: no model of ours sees them
(`encoders/text_form.py`).
"""

import re
from collections.abc import Collection

import numpy as np

from sam_audio_jax.data.likeness import WORD, words

# {} is the caption, {a} its article with a space behind it, or nothing.
TEMPLATES = (
    "the sound of {a}{}",
    "the sound of {}",
    "sound of {a}{}",
    "{a}{}",
    "{} sound",
    "{} noise",
    "noise of {a}{}",
    "the noise of {}",
    "recording of {a}{}",
    "i hear {a}{}",
)
# Of an instrument, the caption without "playing"; the others fit it, too.
PLAYED = ("someone playing {a}{}", "{} music", "the sound of {a}{}", "{a}{} being played")
# First words without an article: what cannot be counted.
UNCOUNTED = frozenset(
    WORD.findall(
        "rain rainfall wind water fire lava steam thunder music speech applause typing "
        "hammering drilling welding digging sizzling slurping rattling wood ice metal laughter "
        "traffic static liquid grass snow people children men women someone low electric "
        "electronic sliding wading kissing distorted plucked"
    )
)
# Words of a caption, and others that say the same of the same sound.
SYNONYMS = (
    ("speaking", "talking"),
    ("man speaking", "male voice speaking"),
    ("woman speaking", "female voice speaking"),
    ("groaning", "moaning"),
    ("dog barking", "dog woofing"),
    ("bird chirping", "bird tweeting"),
    ("birds chirping", "birds tweeting"),
    ("meowing", "mewing"),
    ("neighing", "whinnying"),
    ("rooster crowing", "cock crowing"),
    ("hen clucking", "chicken clucking"),
    ("baby crying", "infant crying"),
    ("hitting", "striking"),
    ("striking", "hitting"),
    ("being hit", "being struck"),
    ("being struck", "being hit"),
    ("hand clap", "clapping"),
    ("applauding", "clapping"),
    ("explosion", "blast"),
    ("gunshot", "gun being fired"),
    ("footsteps", "walking"),
    ("hitting rock", "hitting stone"),
    ("telephone", "phone"),
    ("car", "automobile"),
    ("propeller plane", "propeller aircraft"),
    ("ocean waves", "sea waves"),
    ("waterfall", "falling water"),
    ("campfire crackling", "fire crackling"),
    ("typing on a keyboard", "keyboard typing"),
    ("wood being chopped", "axe chopping wood"),
    ("gun being reloaded", "reloading a gun"),
)
INVERTED = re.compile(r"(?P<source>[^\W\d_-]+) (?P<verb>[^\W\d_]+ing)")  # exactly two words
NOT_INVERTED = ("playing", "speaking", "talking")
SYNONYM_SHARE = 0.5  # wordings with a synonym, where there is one; half of them without a template
INVERTED_SHARE = 0.3  # wordings with the participle in front, where the caption allows it
TRIES = 4  # wordings that are drawn until one is not true of the other sound as well


def reworded(phrase: str, others: Collection[str], rng: np.random.Generator) -> str:
    """Another wording of a phrase, which is not one of the other sound of its mixture.

    `others` are phrases that hold for the other sound. The phrase itself where no wording fits.
    """
    forbidden = {words(other) for other in others} - {words(phrase)}
    for _ in range(TRIES):
        wording = _draw(phrase, rng)
        if wording != phrase and words(wording) not in forbidden:
            return wording
    return phrase


def _draw(phrase: str, rng: np.random.Generator) -> str:
    """One wording; the number of draws depends on the phrase and on what is drawn."""
    options = synonyms(phrase)
    if options and rng.random() < SYNONYM_SHARE:
        phrase = options[int(rng.integers(len(options)))]
        if rng.random() < 0.5:
            return phrase
    inverted = _inverted(phrase)
    if inverted and rng.random() < INVERTED_SHARE:
        phrase = inverted
        if rng.random() < 0.5:
            return phrase
    played = phrase.removesuffix(" playing")
    if played not in (phrase, "music") and rng.random() < 0.5:
        template, phrase = PLAYED[int(rng.integers(len(PLAYED)))], played
    else:
        template = TEMPLATES[int(rng.integers(len(TEMPLATES)))]
    # Whether there is one depends on the source, which "barking dog" has behind.
    counted = article(phrase.split()[-1] if phrase == inverted else phrase)
    return template.format(phrase, a=counted and _indefinite(phrase))


def synonyms(phrase: str) -> list[str]:
    """The phrase with one row of `SYNONYMS` applied, for each that fits."""
    padded = f" {phrase} "
    rows = [(f" {word} ", f" {other} ") for word, other in SYNONYMS]
    return [padded.replace(word, other).strip() for word, other in rows if word in padded]


def article(phrase: str) -> str:
    """Returns "a ", "an " or nothing, by the first word of a caption."""
    first = phrase.split()[0] if phrase.split() else ""
    plural = first.endswith("s") and not first.endswith("ss")
    if not first or plural or first in UNCOUNTED or first in ("a", "an", "the"):
        return ""
    return _indefinite(first)


def _indefinite(phrase: str) -> str:
    return "an " if phrase[0] in "aeiou" else "a "


def _inverted(phrase: str) -> str:
    """Returns "barking dog" for "dog barking", and "" where the caption has another form."""
    found = INVERTED.fullmatch(phrase)
    if not found or found["verb"] in NOT_INVERTED:
        return ""
    return f"{found['verb']} {found['source']}"
