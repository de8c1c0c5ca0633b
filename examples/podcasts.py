"""Frees the speech of every episode in a folder from music and noise.

    python examples/podcasts.py episodes --out clean

Writes a manifest of the folder and hands it to `sam-audio separate`, which reads, separates and
writes the episodes side by side: OUT/stems/ID.target.wav is the speech, OUT/stems/ID.residual.wav
the rest. The same call again continues where it was stopped, and takes episodes that are new. An
episode that cannot be read stops no other: it is in OUT/stems/failed.jsonl with the reason, and the
exit status is then 1.
"""

import argparse
import json
import pathlib
import sys
from collections.abc import Sequence

from sam_audio_jax.cli import main as sam_audio
from sam_audio_jax.files import whole_file

SOUND = (".aac", ".aiff", ".flac", ".m4a", ".mka", ".mp3", ".mp4", ".ogg", ".opus", ".wav", ".webm")


def episodes(folder: pathlib.Path, out: pathlib.Path) -> list[dict[str, str]]:
    """The lines of the manifest: every sound file of the folder and those below it, by name.

    Those below `out` are results and not episodes. The id, with which the names of the results
    begin, is the path with "__" between its parts.
    """
    results = out.resolve()
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SOUND and results not in path.resolve().parents
    )
    ids = ["__".join(file.relative_to(folder).parts) for file in files]
    return [
        {"id": name, "audio": str(file.resolve())} for name, file in zip(ids, files, strict=True)
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Separates the folder; returns the exit status of `sam-audio separate`."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path, help="with episodes, also in folders below it")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of the results")
    parser.add_argument("--text", default="speech", help="what to keep")
    parser.add_argument("--checkpoint", default="tiny", help="any model that separate takes")
    arguments = parser.parse_args(argv)
    lines = [line | {"text": arguments.text} for line in episodes(arguments.folder, arguments.out)]
    if not lines:
        print(f"error: no sound files ({', '.join(SOUND)}) in {arguments.folder}", file=sys.stderr)
        return 2
    manifest = arguments.out / "manifest.jsonl"
    manifest.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(manifest) as part:
        part.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")
    # "wiener" keeps the rate and the channels of each episode.
    options = ["--refine", "wiener", "--checkpoint", arguments.checkpoint]
    stems = arguments.out / "stems"
    return sam_audio(["separate", "--manifest", str(manifest), "--out", str(stems), *options])


if __name__ == "__main__":
    sys.exit(main())
