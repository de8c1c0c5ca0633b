"""Any model into a folder of its own: `python launch/convert.py --from PATH_OR_HF_ID --to DIR`.

Reads a shipped name, a training workdir or one step of it, a folder in the upstream layout (with
checkpoint.pt or checkpoint.safetensors) or a Hugging Face id; writes upstream's layout with
safetensors and the text encoder beside it. --export makes it mean the same to upstream's code,
which knows no scale of the latents (it is moved into the codec's weights) and wants a vision tower:
a model trained here gets one by --tower PATH_OR_HF_ID.

The frozen encoders are read too, each told by what its folder holds: pe-a-frame-small, -base and
-large, T5 and PE-Core-L14-336 (a folder or its .pt file, which --export writes again, with torch).
"""

import argparse
import pathlib
import sys

from sam_audio_jax import config
from sam_audio_jax.convert.load import convert
from sam_audio_jax.errors import UserError


def options(argv: list[str]) -> argparse.Namespace:
    parser = config.ArgumentParser(__doc__)
    parser.add_argument("--from", dest="source", required=True, help="what to read")
    parser.add_argument("--to", required=True, help="folder to make; must not exist")
    parser.add_argument("--export", action="store_true", help="for upstream's code")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), help="of the files; without, as in the source"
    )
    parser.add_argument("--tower", help="where to take the vision tower from")
    return parser.parse_args(argv)


def main(argv: list[str]) -> int:
    try:
        given = options(argv)
        if pathlib.Path(given.to).exists():
            raise UserError(f"--to {given.to} exists; name a folder that does not")
        complete = convert(
            given.source, given.to, dtype=given.dtype, fold=given.export, tower=given.tower
        )
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    made = sorted(path.name for path in pathlib.Path(given.to).iterdir())
    print(f"{given.to}: {', '.join(made)}", file=sys.stderr)
    if given.export and not complete:
        said = "no vision tower in it, which upstream's code wants: name one by --tower"
        print(f"note: {said}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
