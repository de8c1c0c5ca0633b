"""Trains a small vision tower on the pictures of training recordings, among word vectors.

`python -m tools.picture_tower --source DIR [--source DIR ...] --words FOLDER --out MODEL`

The tower is a Perception Encoder of the sizes below. As in CLIP (arXiv 2103.00020) each picture is
to find its captions, whose vectors are frozen: the mean of the word vectors of FOLDER
(`sam-audio convert --from wordllama`). What it looks at is drawn anew in each update: a masked
object in a scene of two (tools/scene_pictures.py), in other colours, shapes and places. MODEL is
the folder of `--model` (tiny) with the tower in it, for `sam-audio prepare --vision-checkpoint` and
`sam-audio convert --tower`. With `--unseen STAMPS` the pictures of tools/unseen_pictures.json are
looked up, too, when the training has ended.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, Float32, Key, PyTree, UInt8
from PIL import Image

from sam_audio_jax import config
from sam_audio_jax.cli.command import at_least, check_to_make, command
from sam_audio_jax.config import to_dict
from sam_audio_jax.convert.folder import TOWER_SIZES, save_folder
from sam_audio_jax.convert.load import load_networks, load_text_encoder
from sam_audio_jax.convert.vision import SAM_AUDIO_PREFIX, vision_table
from sam_audio_jax.encoders.clips import pixels, resize
from sam_audio_jax.encoders.text_means import TextMeans, unit
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.linear import linear
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.progress_bar import progress_bar
from sam_audio_jax.train.audio_text_objective import LARGEST_SCALE
from sam_audio_jax.train.config import OptimConfig
from sam_audio_jax.train.optimizer import constant_schedule, decay_mask, make_optimizer
from sam_audio_jax.train.step import Scalars, TrainState, train_step
from sam_audio_jax.video.masks import apply_mask
from tools.scene_pictures import Scene, read_object
from tools.video_scenes import Pictures, known_pictures, unseen_pictures

# 0.5 M parameters; the separator of configs/video_tiny.py takes vectors of 32 numbers.
SIZES = VisionConfig(
    image_size=48,
    patch_size=8,
    width=96,
    depth=4,
    heads=4,
    mlp=256,
    output=32,
    pool_heads=4,
    dtype="bfloat16",
)
OPTIM = OptimConfig(peak_lr=1e-3, warmup_steps=100, weight_decay=0.1, ema_decay=0.99)
STEPS, BATCH = 800, 64
ROTATION_DEG, STRETCH, COLOUR = 20.0, 0.2, 0.35  # largest changes of a picture
LOOKS = 1_024  # pictures by which the tower is measured

Batch = dict[str, np.ndarray]
Vectors = Float32[np.ndarray, "pictures embedding"]


class PictureTower(nnx.Module):
    """A vision tower and what maps its vectors to the space of words, which is not kept."""

    def __init__(self, sizes: VisionConfig, embedding: int, *, rngs: nnx.Rngs):
        self.vision = VisionEncoder(sizes, rngs=rngs)
        self.out = linear(
            sizes.output, embedding, ("channels", "embed"), dtype="float32", rngs=rngs
        )
        self.scale = nnx.Param(jnp.full(1, np.log(10.0)))

    def __call__(self, frames: UInt8[Array, "batch y x 3"]) -> Float[Array, "batch embedding"]:
        """Vectors of length 1."""
        small = resize(frames, self.vision.config.image_size)
        return unit(self.out(self.vision.encode(pixels(small))))


class Looks:
    """Draws masked objects; `paths` are pictures, `numbers` what is to be found for each."""

    def __init__(self, paths: Sequence[pathlib.Path], numbers: Sequence[int], seed: int):
        self.objects = [read_object(path) for path in paths]
        self.numbers, self.rng = np.asarray(numbers, np.int32), np.random.default_rng(seed)

    def batch(self, size: int) -> Batch:
        """So many pictures, two from each scene."""
        pictures, chosen = [], []
        for _ in range(size // 2):
            pair = self.rng.integers(len(self.objects), size=2)
            objects = [changed(self.objects[number], self.rng) for number in pair]
            picture, visible = Scene.draw(objects, self.rng).at(0.0)
            pictures += [recoloured(apply_mask(picture, mask), self.rng) for mask in visible]
            chosen += self.numbers[pair].tolist()
        return {"frames": np.stack(pictures), "caption": np.asarray(chosen, np.int32)}


def changed(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The object rotated and stretched a little."""
    turned = picture.rotate(
        rng.uniform(-ROTATION_DEG, ROTATION_DEG), Image.Resampling.BILINEAR, True
    )
    stretch = np.exp(rng.uniform(-STRETCH, STRETCH))
    return turned.resize((max(1, round(turned.width * stretch)), turned.height))


def recoloured(
    picture: UInt8[np.ndarray, "y x 3"], rng: np.random.Generator
) -> UInt8[np.ndarray, "y x 3"]:
    """The picture brighter or darker, in other colours; black stays black."""
    gains = np.exp(rng.uniform(-COLOUR, COLOUR) + rng.uniform(-COLOUR, COLOUR, 3) / 2)
    return np.clip(picture * gains, 0, 255).astype(np.uint8)


def picture_loss(
    tower: PictureTower, batch: dict[str, Array], vectors: Float[Array, "pictures embedding"]
) -> tuple[Float[Array, ""], Scalars]:
    """The mean cross-entropy, and the share of the batch whose captions are found first."""
    cosines = jnp.matmul(tower(batch["frames"]), vectors.T, precision="highest")
    scale = jnp.minimum(jnp.exp(tower.scale[...]), LARGEST_SCALE)
    losses = optax.softmax_cross_entropy_with_integer_labels(cosines * scale, batch["caption"])
    found = jnp.argmax(cosines, axis=1) == batch["caption"]
    return jnp.mean(losses), {"top1": jnp.mean(found.astype(jnp.float32))}


def train(tower: PictureTower, looks: Looks, vectors: Vectors, steps: int) -> PictureTower:
    """The tower with averaged weights after so many updates."""
    graph, params = nnx.split(tower)
    params = nnx.as_pure(params)
    tx = make_optimizer(OPTIM, constant_schedule(OPTIM), decay_mask)
    ema = jax.tree.map(jnp.copy, params)
    state = TrainState(jnp.int32(0), params, ema, tx.init(params), jax.random.key(0))

    def loss(params: PyTree, batch: PyTree, key: Key[Array, ""]) -> tuple[Array, Scalars]:
        del key  # nothing is drawn
        return picture_loss(nnx.merge(graph, params), batch, jnp.asarray(vectors))

    @jax.jit
    def step(state: TrainState, batch: PyTree) -> tuple[TrainState, Scalars]:
        return train_step(state, batch, loss=loss, tx=tx, ema_decay=OPTIM.ema_decay)

    progress = progress_bar(range(steps), desc="training", unit="update")
    for number in progress:
        state, metrics = step(state, looks.batch(BATCH))
        if number % 50 == 49:
            progress.set_postfix_str(f"loss {metrics['loss']:.2f}, top1 {metrics['top1']:.2f}")
    return nnx.merge(graph, state.ema)


def found_share(tower: PictureTower, looks: Looks, vectors: Vectors) -> float:
    """The share of masked objects whose captions are the nearest of all."""
    graph, params = nnx.split(tower)

    @jax.jit
    def found(params: PyTree, batch: PyTree) -> Array:
        return picture_loss(nnx.merge(graph, params), batch, jnp.asarray(vectors))[1]["top1"]

    shares = [float(found(params, looks.batch(BATCH))) for _ in range(LOOKS // BATCH)]
    return float(np.mean(shares))


def captions_of(pictures: Pictures) -> dict[pathlib.Path, list[str]]:
    """The captions of each picture, in the order of their names."""
    found: dict[pathlib.Path, list[str]] = {}
    for caption, paths in sorted(pictures.items()):
        for path in paths:
            found.setdefault(path, []).append(caption)
    return dict(sorted(found.items()))


def word_vectors(folder: str, captions: Sequence[Sequence[str]]) -> Vectors:
    """For each list of captions the mean of their vectors, of length 1."""
    encoder, tokenizer = load_text_encoder(folder)
    if not tokenizer:
        raise UserError(f"--words {folder} has no tokenizer beside it")
    means = TextMeans(encoder, tokenizer_for(tokenizer, normalizes=True))
    return unit(np.stack([unit(means(texts)).mean(axis=0) for texts in captions]))


def save(tower: VisionEncoder, model: str, out: pathlib.Path) -> None:
    """Writes the folder of a model with the tower in it."""
    codec, prompted, tokenizer, extra = load_networks(model)
    stored = vision_table(tower.config).stored(tower)
    rest = {SAM_AUDIO_PREFIX + name: tensor for name, tensor in stored.items()}
    extra |= {TOWER_SIZES: to_dict(tower.config), "rest": dict(extra.get("rest", {})) | rest}
    save_folder(out, codec, prompted, tokenizer, extra)


def read_options(argv: list[str]) -> argparse.Namespace:
    """The options of the tool. Raises `UserError` for what cannot be understood."""
    parser = config.ArgumentParser(__doc__, command="picture_tower")
    parser.add_argument("--source", type=pathlib.Path, action="append", required=True)
    parser.add_argument("--words", required=True, help="model folder of the word vectors")
    parser.add_argument(
        "--out", type=config.local_folder, required=True, help="model folder to make"
    )
    parser.add_argument("--model", default="tiny", help="what the tower is put into")
    parser.add_argument("--unseen", type=pathlib.Path, help="folder of the stamps of Tux Paint")
    parser.add_argument("--steps", type=at_least(1), default=STEPS)
    parser.add_argument("--seed", type=at_least(0), default=0)
    return parser.parse_args(argv)


@command
def main(argv: list[str]) -> None:
    """Trains and writes one tower, and says how often it finds the captions."""
    options = read_options(argv)
    check_to_make(options.out, "--out")
    known = captions_of(known_pictures([str(one / "manifest.jsonl") for one in options.source]))
    vectors = word_vectors(options.words, list(known.values()))
    tower = PictureTower(SIZES, vectors.shape[1], rngs=Rngs(options.seed))
    looks = Looks(list(known), range(len(known)), options.seed)
    tower = train(tower, looks, vectors, options.steps)
    save(tower.vision, options.model, options.out)
    looks = Looks(list(known), range(len(known)), options.seed + 1)
    print(f"known pictures, {len(known)}: {found_share(tower, looks, vectors):.0%} found")
    if options.unseen:
        number_of = {text: i for i, texts in enumerate(known.values()) for text in texts}
        unseen = captions_of(unseen_pictures(options.unseen))
        looks = Looks(list(unseen), [number_of[one] for (one,) in unseen.values()], options.seed)
        print(f"unseen pictures, {len(unseen)}: {found_share(tower, looks, vectors):.0%} found")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
