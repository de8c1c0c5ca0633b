"""A page in the browser to try a model on: drop a recording, mark, listen, download.

sam-audio demo
sam-audio demo runs/tiny --port 8000 --open

Needs the extra `demo` (pip install 'sam-audio-jax[demo]'). The page is for this machine alone
unless --host says otherwise; whoever reaches that address may then use it (docs/demo.md). What
visitors bring is in a temporary folder, which is removed when the command ends (Ctrl-C).
"""

import argparse
import importlib.util
import sys

from sam_audio_jax import config
from sam_audio_jax.cli.command import add_mesh_options, at_least, command, mesh_of
from sam_audio_jax.convert.load import parameter_bytes
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer import inputs
from sam_audio_jax.infer.separate import SAMAudio

PACKAGES = ("starlette", "uvicorn")


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the command. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="demo")
    add = parser.add_argument
    add("model", nargs="?", default="tiny", help="shipped name, workdir or step, folder, HF id")
    add("--host", default="127.0.0.1", help="address to listen on; 0.0.0.0: for other machines")
    add("--port", type=at_least(0), default=7860, help="0: any that is free")
    add("--max-mb", type=float, default=Limits.max_mb, help="of one uploaded file")
    add("--max-minutes", type=float, default=Limits.max_minutes, help="of one recording")
    add("--open", action="store_true", help="open the page in the browser")
    add_mesh_options(parser)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Loads the model, then serves the page until Ctrl-C."""
    args = read_options(argv)
    limits = Limits(max_mb=args.max_mb, max_minutes=args.max_minutes)
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"the page needs {package}, which is not installed: pip install "
                "'sam-audio-jax[demo]'"
            )
    from sam_audio_jax.demo.serving import listen, serve

    listener = listen(args.host, args.port)
    print(f"loading {args.model}", file=sys.stderr)
    name = inputs.check_checkpoint(args.model)
    model = SAMAudio.from_pretrained(name, mesh=mesh_of(args, lambda: parameter_bytes(name)))
    serve(model, name, listener, args.host, limits, browse=args.open)
