"""Writes any model as a folder of its own: `sam-audio convert --from PATH_OR_HF_ID --to DIR`.

Reads a shipped name, a training workdir or one step of it, a folder in the upstream layout (with
checkpoint.pt or checkpoint.safetensors) or a Hugging Face id; writes upstream's layout with
safetensors and the text encoder beside it. --export writes the folder for upstream's code, which
has no scale of the latents (it is folded into the codec's weights) and requires a vision tower: a
model trained here gets one by --tower PATH_OR_HF_ID. --adapter DIR merges an adapter of `sam-audio
finetune --lora` into the weights.

The frozen networks are read too, each recognised by what its folder holds: pe-a-frame-small, -base
and -large, T5, `wordllama` (the word vectors of that package), judges, audio towers, and
PE-Core-L14-336 (a folder or its .pt file, which --export writes again, with torch).
"""

import argparse
import sys

from sam_audio_jax import config
from sam_audio_jax.cli.command import add_adapter_option, check_to_make, command
from sam_audio_jax.convert.folder import open_folder, reads_video
from sam_audio_jax.convert.load import convert
from sam_audio_jax.infer.separate import check_own_settings


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="convert")
    parser.add_argument("--from", dest="source", required=True, help="the model to read")
    parser.add_argument(
        "--to",
        type=config.local_folder,
        required=True,
        help="folder to make; must not exist or be empty",
    )
    parser.add_argument("--export", action="store_true", help="write it for upstream's code")
    parser.add_argument(
        "--dtype", choices=("float32", "float16"), help="of the files; default: as in the source"
    )
    parser.add_argument("--tower", help="the model whose vision tower is added")
    add_adapter_option(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Converts one model; a note says when an export lacks its vision tower."""
    options = read_options(argv)
    check_to_make(options.to, "--to")
    complete = convert(
        options.source,
        str(options.to),
        dtype=options.dtype,
        fold=options.export,
        tower=options.tower,
        adapters=options.adapter,
        check=check_own_settings,
    )
    names = sorted(path.name for path in options.to.iterdir())
    print(f"{options.to}: {', '.join(names)}", file=sys.stderr)
    if options.tower and not reads_video(open_folder(options.to).contents.state):
        print(
            "note: the model was never trained on videos: it ignores what the tower sees",
            file=sys.stderr,
        )
    if options.export and not complete:
        print(
            "note: no vision tower in it, which upstream's code requires: name one by --tower",
            file=sys.stderr,
        )
