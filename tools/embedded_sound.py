"""Makes the sound that ships inside the package: a small, free, balanced part of larger manifests.

`python -m tools.embedded_sound --source DIR [--source DIR ...] --out DIR`

Each source DIR holds manifest.jsonl, songs.jsonl and the files that they name. The new folder gets
manifest.jsonl, songs.jsonl, mixtures.jsonl (fixed_mixtures.py), audio/ and LICENSES.md.
"""

import argparse
import collections
import hashlib
import pathlib
import re
import sys
from collections.abc import Iterable
from typing import Any

import soundfile

from sam_audio_jax import audio, config
from sam_audio_jax.cli.command import command
from sam_audio_jax.data.source import load_manifest, read_objects
from sam_audio_jax.files import whole_folder, write_jsonl
from tools import fixed_mixtures

SAMPLE_RATE = 24_000
COMPRESSION = 0.9  # of Ogg Vorbis: 1 is smallest
SECONDS = {"sfx": 420.0, "speech": 330.0, "instrument": 360.0, "music": 480.0}  # of train
FREE = re.compile(r"(CC0-1\.0|CC-BY(-SA)?-\d\.\d|BSD-[23]-Clause|MIT)( \([^)]*\))?")
KEPT = [
    "id",
    "caption",
    "alt_captions",
    "category",
    "split",
    "source_id",
    "speaker",
    "language",
    "song",
    "stem",
    "spans",
    "package",
    "package_version",
    "original",
    "credit",
    "soundfont",
]
AUTHORS = {
    "asterisk-core-sounds-en-g722": "Digium, Inc.; voice: Allison",
    "asterisk-core-sounds-es-g722": "Digium, Inc.; voice: Allison",
    "asterisk-core-sounds-fr-g722": "Digium, Inc.; voice: June",
    "asterisk-core-sounds-ru-g722": "Digium, Inc.; voice: IvrvoiceRU",
    "fluid-soundfont-gm": "Frank Wen (soundfont); the tunes were made up for this collection",
    "freedoom": "Contributors to the Freedoom project (score); Frank Wen (soundfont)",
    "megaglest-data": "The MegaGlest team",
    "minetest-data": "Contributors to Minetest Game, named in the package's README files",
    "openttd-opensfx": "Contributors to OpenSFX",
    "scratch": "Lifelong Kindergarten Group, MIT Media Lab",
    "sonic-pi-samples": "Sonic Pi; freesound.org users who gave up their rights",
    "sound-theme-freedesktop": "Contributors to the freedesktop.org sound theme",
    "unknown-horizons": "The Unknown Horizons team",
    "wordwarvi-sound": "Stephen M. Cameron and the authors named in the package",
}
NOTICE = """# Licences of the embedded sound

Each file keeps its own licence, named below with the package it came from, the file in it, and its
authors. Every file was resampled to 24 kHz mono and encoded again (Ogg Vorbis); some are short
sounds strung together or music rendered from scores. Captions come from the collection's authors.

Texts: CC0-1.0 https://creativecommons.org/publicdomain/zero/1.0/,
CC-BY-3.0 https://creativecommons.org/licenses/by/3.0/,
CC-BY-SA-3.0 https://creativecommons.org/licenses/by-sa/3.0/. The mixtures listed in mixtures.jsonl
exist only when rendered.

## MIT (soundfont samples)

Copyright (c) 2000-2002, 2008 Frank Wen

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and
associated documentation files (the "Software"), to deal in the Software without restriction,
including without limitation the rights to use, copy, modify, merge, publish, distribute,
sublicense, and/or sell copies of the Software, and to permit persons to whom the Software is
furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or
substantial portions of the Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT
NOT LIMITED TO THE WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND
NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM,
DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING FROM, OUT
OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

## BSD-3-Clause (scores of Freedoom)

Copyright (c) 2001-2023 Contributors to the Freedoom project. All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted
provided that the following conditions are met:

- Redistributions of source code must retain the above copyright notice, this list of conditions
  and the following disclaimer.
- Redistributions in binary form must reproduce the above copyright notice, this list of conditions
  and the following disclaimer in the documentation and/or other materials provided with the
  distribution.
- Neither the name of the Freedoom project nor the names of its contributors may be used to endorse
  or promote products derived from this software without specific prior written permission.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR
IMPLIED WARRANTIES, INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND
FITNESS FOR A PARTICULAR PURPOSE ARE DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT OWNER OR
CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL, SPECIAL, EXEMPLARY, OR CONSEQUENTIAL
DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR SERVICES; LOSS OF USE,
DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY, WHETHER
IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT
OF THE USE OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.
"""

Line = dict[str, Any]


def is_free(licence: str) -> bool:
    """Whether a licence, or each part of "A (score), B (samples)", may be in the package."""
    return all(FREE.fullmatch(part.strip()) for part in licence.split(","))


def choose(lines: Iterable[Line]) -> list[Line]:
    """All free validation clips, and SECONDS of training clips of each category.

    Captions and sources alternate. No training clip shares a source with a validation clip. Songs
    come with all their stems.
    """
    free = [line for line in lines if is_free(line["license"])]
    valid = [line for line in free if line["split"] == "valid"]
    held_out = {line["source_id"] for line in valid}
    rest = [line for line in free if line["split"] == "train" and line["source_id"] not in held_out]
    chosen = list(valid)
    for category, seconds in SECONDS.items():
        for group in _alternating([line for line in rest if line["category"] == category]):
            length = sum(line["duration"] for line in group)
            if length <= seconds:
                seconds -= length
                chosen += group
    return sorted(chosen, key=lambda line: line["id"])


def _alternating(lines: list[Line]) -> list[list[Line]]:
    """Groups that belong together (the stems of a song, else one clip), rare captions first."""
    songs, queues = collections.defaultdict(list), collections.defaultdict(list)
    for line in sorted(lines, key=lambda line: hashlib.sha256(line["id"].encode()).digest()):
        if line.get("song"):
            songs[line["song"]].append(line)
        else:
            queues[line["caption"], line["source_id"]].append([line])
    rounds = collections.defaultdict(list)
    seen = collections.Counter()
    for (caption, _), queue in queues.items():
        for group in queue:
            rounds[seen[caption]].append(group)
            seen[caption] += 1
    return list(songs.values()) + [group for number in sorted(rounds) for group in rounds[number]]


def write(sources: list[pathlib.Path], out: pathlib.Path) -> None:
    """Makes the folder `out`. Raises `UserError` if it exists or a source is wrong."""
    lines, songs = [], []
    for folder in sources:
        for _, line in read_objects(folder / "manifest.jsonl"):
            licence = line.get("license") or line.get("licence") or "unknown"
            lines.append(line | {"license": licence, "path": folder / line["path"]})
        songs += [line for _, line in read_objects(folder / "songs.jsonl")]
    known = {line["caption"] for line in lines if line["split"] == "train"}
    chosen = choose(lines)
    ids = {line["id"] for line in chosen}
    songs = [song for song in songs if all(stem["id"] in ids for stem in song["stems"])]
    with whole_folder(out) as part:
        kept = [_encode(line, part) for line in chosen]
        write_jsonl(part / "manifest.jsonl", kept)
        keys = ("song", "split", "stems", "package", "original")
        write_jsonl(part / "songs.jsonl", [{key: song[key] for key in keys} for song in songs])
        load_manifest(part / "manifest.jsonl")
        write_jsonl(part / "mixtures.jsonl", fixed_mixtures.mixtures(part, known))
        (part / "LICENSES.md").write_text(_licences(kept))


def _encode(line: Line, folder: pathlib.Path) -> Line:
    """Writes one clip at SAMPLE_RATE and returns its manifest line."""
    sound = audio.load(line["path"])
    wave = audio.resample(sound.samples.mean(axis=0), sound.sample_rate, SAMPLE_RATE)
    path = folder / "audio" / line["category"] / f"{line['id']}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(
        path, wave, SAMPLE_RATE, format="OGG", subtype="VORBIS", compression_level=COMPRESSION
    )
    kept = {key: line[key] for key in KEPT if line.get(key) not in (None, "", [])}
    return {
        "id": kept.pop("id"),
        "path": str(path.relative_to(folder)),
        **kept,
        "license": line["license"],
        "duration": round(len(wave) / SAMPLE_RATE, 4),
        "samples": len(wave),
        "sample_rate": SAMPLE_RATE,
    }


def _licences(lines: list[Line]) -> str:
    rows = [
        "\n## Files\n",
        "| file | licence | package | original | authors |",
        "|---|---|---|---|---|",
    ]
    for line in lines:
        package = f"{line['package']} {line.get('package_version', '')}".strip()
        authors = line.get("credit") or AUTHORS.get(line["package"], "")
        cells = (line["path"], line["license"], package, line.get("original", ""), authors)
        rows.append("| " + " | ".join(cell.replace("|", "/") for cell in cells) + " |")
    return NOTICE + "\n".join(rows) + "\n"


@command
def main(argv: list[str]) -> None:
    """Makes the folder that the arguments name."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0], allow_abbrev=False)
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--out", type=config.local_folder, required=True)
    arguments = parser.parse_args(argv)
    write(arguments.source, arguments.out)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
