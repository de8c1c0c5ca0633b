"""The one form of a text that our own models read, in training, evaluation and inference alike.

What is asked for does not hang on capitals, spaces, a final full stop or the Unicode form of a
letter, so these are taken away before a text is tokenised. Captions of the training data are in
this form already. Models that were trained elsewhere read a text as it is written
(docs/prompt_encoders.md, "T5").
"""

import re
import unicodedata

# Signs that are written in several ways, after NFKC.
QUOTES = {0x2018: "'", 0x2019: "'", 0x201A: "'", 0x201B: "'", 0x2032: "'", 0x00B4: "'", 0x0060: "'"}
QUOTES |= {0x201C: '"', 0x201D: '"', 0x201E: '"', 0x201F: '"', 0x2033: '"', 0x00AB: '"'}
QUOTES |= {0x00BB: '"'}
DASHES = dict.fromkeys([*range(0x2010, 0x2016), 0x2212], "-")
SIGNS = QUOTES | DASHES
INVISIBLE = ("Cf", "Cc", "Cs")  # categories of characters that show nothing
SURROGATES = re.compile("[\ud800-\udfff]")


def normalize(text: str) -> str:
    """The text in lower case, with single spaces and plain signs; "" if nothing is asked for.

    NFKC, without characters that show nothing and without full stops at the end. A text in this
    form is returned as it is.
    """
    if not has_words(text):
        return ""
    while True:  # a second time where lower case, or a sign that is gone, lets characters combine
        plain = unicodedata.normalize("NFKC", text.lower()).translate(SIGNS)
        shown = (c for c in plain if c.isspace() or not _is_invisible(c))
        plain = " ".join("".join(shown).split()).rstrip(". ")
        if plain == text:
            return plain
        text = plain


def has_words(text: str) -> bool:
    """Whether a text asks for anything: it holds more than spaces and punctuation."""
    return any(unicodedata.category(c)[0] not in "PZ" and not _is_invisible(c) for c in text)


def find_surrogate(text: str) -> str:
    """The first half of a character in a text, escaped; "" in a text that Unicode allows.

    Half an emoji in JSON is one, and so is a byte of a command line that is no UTF-8.
    """
    found = SURROGATES.search(text)
    return ascii(found.group())[1:-1] if found else ""


def _is_invisible(character: str) -> bool:
    variation = 0xFE00 <= ord(character) <= 0xFE0F  # of the same emoji: in colour or not
    return variation or unicodedata.category(character) in INVISIBLE
