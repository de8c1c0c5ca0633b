"""Writes the captions that a model was trained with into its folder, and measures their limit.

`python -m tools.known_sounds MODEL --source DIR [--source DIR ...] [--least 0.5] [--write]`

Each source DIR holds a manifest.jsonl. Prints, for several limits of the cosine, which share of the
other wordings of known sounds would be called unknown, with that wording left out, and which share
of the captions of validation recordings that the training does not have.
"""

import argparse
import pathlib
import sys

import numpy as np

from sam_audio_jax import config
from sam_audio_jax.cli.command import command
from sam_audio_jax.convert.load import load_text_encoder
from sam_audio_jax.data.source import load_manifests
from sam_audio_jax.data.text import texts_of
from sam_audio_jax.encoders.text_form import normalize
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.infer.known_sounds import KnownConfig, KnownSounds
from tools.model_settings import add_write_option, check_write_option, write_setting

LIMITS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.7)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="known_sounds")
    parser.add_argument("model", help="a model folder")
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--least", type=float, default=KnownConfig.least_cosine)
    add_write_option(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Prints the shares, and writes the captions if asked to."""
    options = read_options(argv)
    check_write_option(options)
    manifests = [str(folder / "manifest.jsonl") for folder in options.source]
    phrases = {
        split: {
            normalize(one.caption): {normalize(text) for text in texts_of(one)}
            for one in load_manifests(manifests, split)
        }
        for split in ("train", "valid")
    }
    captions = set(phrases["train"])
    others = set().union(*phrases["train"].values()) - captions
    encoder, name = load_text_encoder(options.model)
    tokenizer = tokenizer_for(name, normalizes=True)

    def sounds(texts: set[str]) -> KnownSounds:
        known = KnownConfig(texts=tuple(sorted(texts)), least_cosine=options.least)
        return KnownSounds(known, encoder, tokenizer)

    plain, every = sounds(captions), sounds(captions | others)
    reworded = np.array([plain.nearest(text)[1] for text in sorted(others)])
    new = {text: every.nearest(text) for text in sorted(set(phrases["valid"]) - captions - others)}
    cosines = np.array([cosine for _, cosine in new.values()])
    print(f"{len(captions)} captions, {len(others)} other wordings, {len(new)} new captions")
    print("| limit | other wordings called unknown | new captions called unknown |\n|---|---|---|")
    for limit in LIMITS:
        shares = [100 * float(np.mean(one < limit)) for one in (reworded, cosines)]
        print(f"| {limit:g} | {shares[0]:.0f} % | {shares[1]:.0f} % |")
    for text, (caption, cosine) in sorted(new.items(), key=lambda one: one[1][1]):
        print(f"{cosine:.2f}  {text} (nearest: {caption})")
    known = {"texts": sorted(captions | others), "least_cosine": options.least}
    write_setting(options, "known", known)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
