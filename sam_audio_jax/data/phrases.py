"""Captions as sentences, made the short noun-verb phrases that prompts are, by rules.

"A dog is barking loudly in the distance" becomes "dog barking". Prompts are such phrases in
[arXiv 2512.18099](https://arxiv.org/abs/2512.18099); the rules are ours. They take away what does
not say what sounds and how (articles, adverbs, where it is, "the sound of") and bring verbs to one
form. No sound that a caption names is left out, because what is true of a recording is known by its
caption.
"""

import functools
import re

from sam_audio_jax.data.likeness import FEMALE, MALE, PEOPLE, WORD
from sam_audio_jax.encoders.text_form import has_words, normalize

# What comes before the phrase.
OPENING = re.compile(
    r"^(?:(?:we|you|i) (?:can )?hear |(?:there|it|this|that) (?:is|are|'s) |there's "
    r"|(?:can be )?(?:hear|notice)d (?:is|are) "
    r"|(?:the |an? |some )?(?:loud |faint |clear )?(?:sounds?|noises?|recordings?|audio) of )+"
)
# What comes after it or stands beside it, and says where and how often.
ASIDE = re.compile(
    r"\b(?:(?:can|could) be (?:hear|notice)d"
    r"|(?:in|at|from) (?:the|a) (?:background|foreground|distance)"
    r"|(?:from|in) (?:far )?(?:away|afar)|far away|in the air|over and over(?: again)?"
    r"|again and again|several times|(?:multiple|many|a few) times|once|twice"
    r"|for a (?:while|moment)|nearby|outdoors|indoors)(?= |$)"
)
CLAUSE = re.compile(r"\b(?:while|whilst|as)\b")  # two sounds at once
ARTICLES = frozenset(WORD.findall("a an the some his her their its my your very really quite"))
AUXILIARY = re.compile(r"\b(?:(?:that|which|who) )?(?:is|are|was|were|has been|have been) (?=\w)")
ADVERB = re.compile(r"^[a-z]{3,}ly$")
NO_ADVERBS = frozenset(
    WORD.findall(
        "family fly belly jelly lily butterfly dragonfly housefly firefly grizzly "
        "assembly bully rally lovely early"
    )
)
# Verbs of sounds in the form that a dictionary has; other verbs stay as they are.
VERBS = frozenset(
    WORD.findall(
        "applaud bang bark beat beep blare bleat blow boil bounce bray breathe burn burp buzz "
        "cackle caw chant chatter cheer chew chime chirp chop clank clap clatter click cluck "
        "clink converse coo cough crack crackle crash creak croak crow crumple crunch cry crush "
        "drip drive echo explode fall fart fizz flap flow flush gallop gargle giggle gobble groan "
        "growl grunt gurgle gush hammer hiss honk hoot howl hum jingle knock laugh meow moan moo "
        "murmur mutter neigh oink pant peep play pop pour purr quack rattle rev ring rip roar "
        "rumble run rustle scratch scream screech shatter shoot shout shriek shuffle sing sizzle "
        "slam slurp snap sneeze sniff snore snort sob speak splash squawk squeak squeal stomp "
        "strum talk tap thump thunder tick toll trickle tweet twitter type vibrate wail walk "
        "warble whimper whine whinny whir whisper whistle whoosh yap yell yelp yodel"
    )
)
DOUBLED = frozenset(WORD.findall("clap chop drip flap hum pop rev rip run slam snap sob tap yap"))
# Before a verb without an ending these are who does it; so is any word with an s at its end.
PLURAL = PEOPLE | MALE | FEMALE | {"they", "geese", "cattle", "sheep"}


@functools.lru_cache(maxsize=20_000)
def noun_verb_phrase(caption: str) -> str:
    """The phrase of a caption; what the rules do not know stays, so that it has a phrase always."""
    text = ", ".join(re.split(r"[.;:!?,]+\s+", normalize(caption))).rstrip(".;:!?, ")
    text = ASIDE.sub("", OPENING.sub("", text))
    text = AUXILIARY.sub("", CLAUSE.sub("and", text))
    kept: list[str] = []
    for token in text.split():
        word = token.strip(",")
        adverb = ADVERB.match(word) and word not in NO_ADVERBS
        if word not in ARTICLES and not adverb:
            token = token.replace(word, _participle(word, kept[-1].strip(",") if kept else ""))
            kept.append(token)
        elif token.endswith(",") and kept:
            kept[-1] = kept[-1].rstrip(",") + ","
    phrase = " ".join(kept).replace(" ,", ",").strip(" ,")
    phrase = re.sub(r"(?:,? and)+$|^(?:and )+", "", phrase)
    return phrase if has_words(phrase) else normalize(caption)


def _participle(word: str, before: str) -> str:
    """A verb after the noun `before` as "barking"; every other word as it is."""
    if not before or before in ("and", "of", "or"):
        return word
    stems = [word[:-1], word[:-2]] if word.endswith("s") else []
    stems += [f"{word[:-3]}y"] if word.endswith("ies") else []
    if before.endswith("s") or before in PLURAL:
        stems.append(word)
    verb = next((stem for stem in stems if stem in VERBS), None)
    if verb is None:
        return word
    if verb in DOUBLED:
        return f"{verb}{verb[-1]}ing"
    return f"{verb[:-1]}ing" if verb.endswith("e") and not verb.endswith("ee") else f"{verb}ing"
