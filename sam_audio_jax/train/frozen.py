"""Where the networks of a separator's training that do not learn have their weights from.

A frozen network without weights is an error: the run would learn to follow random numbers, and
nothing in its losses would show it. Tests and plans ask for random weights by the name `RANDOM`.
A workdir keeps what was loaded: the codec in `codec/`, the text encoder in every checkpoint, the
tower of prompts by example in `audio_tower/`.
"""

import dataclasses
import json
import pathlib
import shutil
import sys

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from sam_audio_jax import distributed, parallel
from sam_audio_jax.codec.codec import Codec, CodecConfig
from sam_audio_jax.codec.probe import is_same_network
from sam_audio_jax.config import from_dict, misfit, to_dict
from sam_audio_jax.convert.audio_tower import open_audio_tower, save_audio_tower
from sam_audio_jax.convert.cnn14 import load_cnn14
from sam_audio_jax.convert.codec import load_codec_folder
from sam_audio_jax.convert.load import load_codec, load_extras, load_networks, load_text_encoder
from sam_audio_jax.data.config import DataConfig
from sam_audio_jax.data.labels import INDEX, PROBE_FRAMES, read_labels_index
from sam_audio_jax.data.shards import CACHE_INDEX, read_index
from sam_audio_jax.encoders.audio_tower import AudioTower, latents_probe, table_fingerprint
from sam_audio_jax.encoders.peav import PeavConfig
from sam_audio_jax.encoders.t5 import T5Config, T5Encoder
from sam_audio_jax.encoders.text_means import TextMeans
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import json_differences, read_json, sha256_of, write_json
from sam_audio_jax.infer.video_prompts import VideoFeatures, stored_tower
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers.cnn14 import Cnn14
from sam_audio_jax.separator.model import PromptedSeparator, project_text
from sam_audio_jax.train.config import AlignmentConfig, CodecTrainConfig, TrainConfig
from sam_audio_jax.workdir import Workdir, find_checkpoint

RANDOM = "random"  # the name of random weights, for tests and plans
PROBE = "A woman speaks: 2 dogs bark, and rain falls!"  # by which tokenizers are compared


def make_codec(config: TrainConfig) -> Codec:
    """The frozen codec that `codec_checkpoint` names.

    Raises `UserError` where it names none, and for a run of `sam-audio train-codec` whose latents
    have no mean and spread yet: later the same codec would have other latents.
    """
    if not config.codec_checkpoint:
        raise UserError(
            "codec_checkpoint is empty: name a trained codec, a frozen one has no other weights"
        )
    if config.codec_checkpoint == RANDOM:
        return parallel.init_sharded(lambda: Codec(config.codec, rngs=Rngs(config.seed)))
    found = find_checkpoint(config.codec_checkpoint)
    is_codec = found is not None and found.run["experiment"] == CodecTrainConfig.__name__
    if found is not None and is_codec and not found.workdir.latents_file.is_file():
        raise UserError(
            f"codec_checkpoint={config.codec_checkpoint} has not been evaluated, which measures "
            "mean and spread of its latents: let `sam-audio train-codec` end (with --steps "
            f"{found.step} it ends at once)"
        )
    return load_codec(config.codec_checkpoint)


def kept_codec(workdir: Workdir, config: TrainConfig) -> Codec:
    """The copy of the frozen codec in a workdir that has checkpoints; all processes call it.

    Where its `codec.json` is damaged or missing, that is written anew from the newest checkpoint,
    or, for a run of an earlier version, from the codec that `codec_checkpoint` names, if that has
    the weights of the copy. Raises `UserError` where neither helps.
    """
    distributed.run_on_first(lambda: _mend_codec(workdir, config))
    return load_codec_folder(workdir.codec)


def _mend_codec(workdir: Workdir, config: TrainConfig) -> None:
    file = workdir.codec / "codec.json"
    try:
        from_dict(CodecConfig, read_json(file))
        return
    except UserError as error:
        damage = error
    fields = workdir.kept_in_checkpoint("codec")
    if fields is not None:
        write_json(file, fields)
    else:
        named = make_codec(config)
        write_json(file, to_dict(named.config))
        copy = load_codec_folder(workdir.codec)
        weights = [jax.tree.leaves(nnx.as_pure(nnx.state(one))) for one in (named, copy)]
        if not all(map(np.array_equal, *weights)):
            file.unlink()
            raise UserError(
                f"{file} is damaged ({damage}); the weights beside it are not those of "
                f"codec_checkpoint={config.codec_checkpoint}: put a copy of the file there"
            )
    print(f"warning: {file} was damaged ({damage}): it was written anew", file=sys.stderr)


def check_latents(config: DataConfig, codec: Codec) -> None:
    """Raises `UserError` for a latent cache or labels of another codec than that of the training.

    Labels of an earlier version do not say which codec they are of.
    """
    named = [(f"data.cache={folder}", read_index(folder)) for folder in config.caches]
    for folder in config.label_folders:
        named.append((f"data.labels.folder={folder}", read_labels_index(folder)))
    probes: dict[int, tuple[float, ...]] = {}
    for name, index in named:
        if "probe" not in index:
            continue
        # Of longer noise the first frames are the same.
        frames = min(PROBE_FRAMES, index.get("samples", np.inf) // index["hop"])
        if (index["sample_rate"], index["hop"]) != (codec.config.sample_rate, codec.config.hop):
            continue  # the data says what differs
        if frames not in probes:
            probes[frames] = latents_probe(codec, frames)
        if not is_same_network(index["probe"], probes[frames]):
            by = f" (codec {index['codec']})" if "codec" in index else ""
            raise UserError(f"{name} has the latents of another codec{by} than the training")


def cache_notes(config: DataConfig) -> list[str]:
    """A line for each cache whose mixtures are not mixed as the config says: the cache counts."""
    lines = []
    for part in config.parts:
        if not part.cache:
            continue
        then, now = read_index(part.cache)["recipe"]["mix"], to_dict(part.mix, free=False)
        changed = [
            f"{name} {old!r}, not {new!r}"
            for name, old, new in json_differences("mix", then, json.loads(json.dumps(now)))
            if name != "mix.seconds"  # examples are crops
        ]
        if changed:
            lines.append(f"note: {part.cache} was mixed with {'; '.join(changed)}")
    return lines


def encoded_sounds(config: DataConfig) -> list[str]:
    """Digests of what describes the caches and labels of a config, the same in another place.

    All of them are there and finished.
    """
    caches = [pathlib.Path(folder) / CACHE_INDEX for folder in config.caches]
    labels = [pathlib.Path(folder) / INDEX for folder in config.label_folders]
    return [sha256_of(path) for path in (*caches, *labels)]


def make_teacher(config: AlignmentConfig, mesh: Mesh | None = None) -> Cnn14:
    """The frozen event model, on one device or sharded over the mesh.

    Raises `UserError` where `alignment.teacher_checkpoint` names none.
    """
    if not config.teacher_checkpoint:
        raise UserError("alignment.teacher_checkpoint is empty; name a Cnn14 file")
    if config.teacher_checkpoint != RANDOM:
        return load_cnn14(config.teacher_checkpoint, config.teacher, mesh)
    return parallel.init_sharded(lambda: Cnn14(config.teacher, rngs=Rngs(0)), mesh)


def open_vision(config: TrainConfig, codec: Codec, mesh: Mesh | None) -> VideoFeatures | None:
    """The vision tower that `vision_checkpoint` names, which is loaded when it is used.

    None where the config names none. Raises `UserError` for a model without a tower.
    """
    name = config.vision_checkpoint
    if not name:
        return None
    tower = stored_tower(load_extras(name), mesh)
    if tower is None:
        raise UserError(
            f"vision_checkpoint={name} has no vision tower: name a model folder that has one, as "
            "`sam-audio convert --tower` makes it"
        )
    return VideoFeatures(tower, codec.config, config.separator.video_width, mesh)


def make_audio_tower(
    workdir: Workdir,
    config: TrainConfig,
    codec: Codec,
    start: PromptedSeparator | T5Encoder | None,
) -> AudioTower | None:
    """The frozen tower of prompts by example; None where the config has no share of them.

    A run that has checkpoints has the workdir's copy of it, which is written before. All processes
    call it. Raises `UserError` for a tower of other sizes, and for one that was trained on other
    latents or among other word vectors than those of `start`.
    """
    like, restored = config.like, bool(workdir.steps())
    is_kept = like.share and like.tower_checkpoint != RANDOM
    if not (is_kept or restored):  # of a start with another config, before the first checkpoint
        distributed.run_on_first(lambda: shutil.rmtree(workdir.audio_tower, ignore_errors=True))
    if not like.share:
        return None
    if not is_kept:
        return parallel.init_sharded(lambda: AudioTower(like.tower, rngs=Rngs(config.seed)))
    stored = open_audio_tower(workdir.audio_tower if restored else like.tower_checkpoint)
    named = f"like.tower_checkpoint={like.tower_checkpoint}"
    sizes = [misfit(like.tower, stored.sizes, ("channels", "embedding"))]
    sizes.append(misfit(like.tower.audio, stored.sizes.audio, _sizes(like.tower.audio)))
    if differing := "; ".join(filter(None, sizes)):
        raise UserError(f"{named} has {differing}")
    if not restored:
        encoder = start.text_encoder if isinstance(start, PromptedSeparator) else start
        if encoder is not None:
            tokenizer = tokenizer_for(config.data.prompts.tokenizer, normalizes=True)
            texts = TextMeans(encoder, tokenizer)
            stored.space.check(codec, texts, named)
            stored.space.check_table(table_fingerprint(texts), named)
        copy = workdir.audio_tower
        distributed.run_on_first(lambda: save_audio_tower(copy, stored, overwrite=True))
    return stored.read()


def load_start(
    config: TrainConfig, mesh: Mesh | None = None, codec: Codec | None = None
) -> PromptedSeparator | T5Encoder | None:
    """The weights that a new run starts from: `init_from`, else those of `text_checkpoint`, if any.

    Where `init_from` has another text encoder than the config, that of `text_checkpoint` takes its
    place, if it is named, and the separator's projection of texts starts anew: a note says so, and
    another one where `init_from` knows the latents of another codec than `codec`. With a mesh the
    weights are sharded while they are read. Raises `UserError` for a frozen text encoder without
    weights, where the run's tokenizer is not that of the text encoder, and for adapters beside a
    model with another of either, on which nothing could load them.
    """
    tokenizer = config.data.prompts.tokenizer
    if config.init_from:
        _, start, theirs, _ = load_networks(config.init_from, mesh=mesh)
        another = misfit(config.text, start.text_encoder.config, _sizes(config.text))
        if codec is not None:
            _check_start_codec(config, codec)
        if config.text_checkpoint and another:
            if config.lora.rank:
                raise UserError(
                    f"lora.rank={config.lora.rank} adapts init_from={config.init_from} with its "
                    f"own text encoder, which has {another}"
                )
            encoder = _load_text_encoder(config, mesh)
            if encoder is not None:
                return _with_text_encoder(start, encoder, config)
        check_tokenizer(tokenizer, theirs, f"init_from={config.init_from}")
        return start
    if not config.text_checkpoint and not config.train_text:
        raise UserError(
            "text_checkpoint is empty: name the weights of the frozen text encoder (t5-base, a "
            "folder of `sam-audio convert --from google-t5/t5-base`, or a model), or train it "
            "with --train-text"
        )
    return _load_text_encoder(config, mesh)


def _check_start_codec(config: TrainConfig, codec: Codec) -> None:
    """Says where `init_from` was trained on the latents of another codec than the run's.

    Raises `UserError` for adapters, which are used with the codec of their base.
    """
    own = load_codec(config.init_from)
    grids = [(one.config.sample_rate, one.config.hop) for one in (own, codec)]
    if grids[0] == grids[1] and is_same_network(
        *(latents_probe(one, PROBE_FRAMES) for one in (own, codec))
    ):
        return
    line = (
        f"init_from={config.init_from} was trained on the latents of another codec than "
        f"codec_checkpoint={config.codec_checkpoint}"
    )
    if config.lora.rank:
        raise UserError(f"{line}, and an adapter of it is used with its own: name that one")
    print(f"note: {line}", file=sys.stderr)


def _load_text_encoder(config: TrainConfig, mesh: Mesh | None) -> T5Encoder | None:
    """The encoder that `text_checkpoint` names, or None for random weights."""
    if config.text_checkpoint in ("", RANDOM):
        return None
    encoder, theirs = load_text_encoder(config.text_checkpoint, mesh=mesh)
    named = f"text_checkpoint={config.text_checkpoint}"
    if differing := misfit(config.text, encoder.config, _sizes(config.text)):
        raise UserError(f"{named} has {differing}")
    if theirs:
        check_tokenizer(config.data.prompts.tokenizer, theirs, named)
    return encoder


def _sizes(network: T5Config | PeavConfig) -> list[str]:
    """The fields of which two networks must have the same; the type of the products may differ."""
    return [field.name for field in dataclasses.fields(network) if field.name != "dtype"]


def _with_text_encoder(
    start: PromptedSeparator, encoder: T5Encoder, config: TrainConfig
) -> PromptedSeparator:
    """The networks with another text encoder, whose states a new projection reads."""
    print(
        f"note: text_checkpoint={config.text_checkpoint} takes the place of the text encoder of "
        f"init_from={config.init_from}; the separator's projection of texts starts anew",
        file=sys.stderr,
    )
    start.text_encoder = encoder
    start.separator.project_text = project_text(config.separator, rngs=Rngs(config.seed))
    return start


def check_tokenizer(name: str, theirs: str, whose: str) -> None:
    """Raises `UserError` unless both tokenizers give the same ids for a sentence."""
    if name == theirs:
        return
    (ours, _), (wanted, _) = (tokenizer_for(one)([PROBE]) for one in (name, theirs))
    if ours.tolist() != wanted.tolist():
        raise UserError(
            f"data.prompts.tokenizer={name} gives other tokens than {theirs}, the tokenizer that "
            f"the text encoder of {whose} was trained with"
        )
