"""The rankers that a released model names, `text_ranker` and `visual_ranker` of its config.json.

    {"kind": "judge", "checkpoint_or_model_id": "facebook/sam-audio-judge"}
    {"kind": "clap", "checkpoint": null}            null: LAION's 630k-best.pt on the hub
    {"kind": "imagebind", "checkpoint": null}       null: the file has to be named
    {"kind": "sound_activity", "threshold_mode": "rel_to_max", "sil_threshold": -40,
     "metric": "iou"}
    {"kind": "ensemble", "rankers": {NAME: [ranker, weight], ...}}

A ranker becomes a scorer whose network is read when it is first needed. How they rank:
docs/scoring.md, "Candidates".
"""

import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int

from sam_audio_jax.bounds import Finite, check
from sam_audio_jax.convert import judge
from sam_audio_jax.convert.clap import load_clap
from sam_audio_jax.convert.encoders import only_file
from sam_audio_jax.convert.imagebind import load_imagebind
from sam_audio_jax.convert.judge import open_judge
from sam_audio_jax.convert.model_files import find_folder, has_tokenizer
from sam_audio_jax.encoders.tokenizer import tokenizer_for
from sam_audio_jax.errors import UserError, shown
from sam_audio_jax.scorers.activity import ActivityConfig
from sam_audio_jax.scorers.clap_scorer import ClapScorer
from sam_audio_jax.scorers.ensemble import Ensemble
from sam_audio_jax.scorers.imagebind_scorer import ImageBindScorer
from sam_audio_jax.scorers.judge import AXES as JUDGE_AXES
from sam_audio_jax.scorers.judge_scorer import JudgeScorer
from sam_audio_jax.scorers.scorer import AxisScores, Needs, PromptView, Scorer, SpanIoU

CLAP_REPOSITORY, CLAP_FILE = "lukewys/laion_clap", "630k-best.pt"
CLAP_TOKENIZER = "FacebookAI/roberta-base"
IMAGEBIND_FILE = "https://dl.fbaipublicfiles.com/imagebind/imagebind_huge.pth"
HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.@-]+")  # of a Hugging Face repository
PUBLISHED_WEIGHTS = {"clap": 5.0, "judge": 1.0}  # of a text ranker, arXiv 2512.18099
# The keys of each kind, with the reference's defaults.
KEYS: dict[str, dict[str, Any]] = {
    "judge": {"checkpoint_or_model_id": judge.HUB},
    "clap": {"checkpoint": None},
    "imagebind": {"checkpoint": None},
    "sound_activity": {"threshold_mode": "rel_to_max", "sil_threshold": -40, "metric": "iou"},
    "ensemble": {"rankers": {}},
}


class StoredScorer:
    """A scorer of one score whose network is read when it is first needed."""

    def __init__(
        self, kind: str, needs: Needs, axis: str, read: Callable[[], Scorer], source: str | None
    ):
        self.kind = kind  # of KEYS
        self.needs: Needs = needs
        self.axes: tuple[str, ...] = (axis,)
        self.source = source  # its name, file or folder; None: the published one
        self._read = read
        self._error: UserError | None = None

    def load(self) -> Scorer:
        """Reads the network, once. Raises `UserError`, every time, where it cannot be read."""
        if self._error is not None:
            raise self._error
        try:
            return self._scorer
        except UserError as error:
            self._error = error
            raise

    @functools.cached_property
    def _scorer(self) -> Scorer:
        return self._read()

    def score(
        self,
        mixtures: Float[np.ndarray, "batch samples"],
        candidates: Float[np.ndarray, "batch candidates samples"],
        lengths: Int[np.ndarray, " batch"],
        sample_rate: int,
        prompts: Sequence[PromptView],
    ) -> AxisScores:
        """As `Scorer.score`, of the first axis alone."""
        scores = self.load().score(mixtures, candidates, lengths, sample_rate, prompts)
        return {self.axes[0]: scores[self.axes[0]]}


def stored_scorers(scorer: Scorer | None) -> Iterator[StoredScorer]:
    """Yields the networks of a ranker that are read when they are needed."""
    match scorer:
        case StoredScorer():
            yield scorer
        case Ensemble():
            for member, _ in scorer.members.values():
                yield from stored_scorers(member)


def load_scorer(scorer: Scorer) -> None:
    """Reads the networks of a ranker that are not there yet. Raises `UserError`."""
    for stored in stored_scorers(scorer):
        stored.load()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRankers:
    """The rankers of one model; None where it has none."""

    text: Scorer | None = None
    visual: Scorer | None = None


def open_rankers(
    config: Mapping[str, Any],
    checkpoints: Mapping[str, str | os.PathLike] | None = None,
    *,
    folder: str | os.PathLike | None = None,
    mesh: Mesh | None = None,
) -> ModelRankers:
    """The rankers of an upstream config; no network is read.

    `checkpoints` name files or folders by kind (`judge`, `clap`, `imagebind`), in place of what the
    config says. Where it has no text ranker they make one, with the published weights; likewise a
    visual ranker. `folder` is the model's, in which the config's names are looked for first. Raises
    `UserError` for a kind, key or value that is not allowed, and for a checkpoint of a kind that
    the model's rankers do not have.
    """
    named = {kind: str(path) for kind, path in (checkpoints or {}).items()}
    allowed = ("judge", "clap", "imagebind")
    for kind in named:
        if kind not in allowed:
            raise UserError(f"ranker {shown(kind)} is unknown; allowed: {', '.join(allowed)}")
    text, visual = config.get("text_ranker"), config.get("visual_ranker")
    if text is None:
        members = {kind: [{"kind": kind}, w] for kind, w in PUBLISHED_WEIGHTS.items()}
        members = {kind: member for kind, member in members.items() if kind in named}
        text = {"kind": "ensemble", "rankers": members} if members else None
    if visual is None and "imagebind" in named:
        visual = {"kind": "imagebind"}
    reader = _Reader(named, None if folder is None else pathlib.Path(folder), mesh)
    rankers = ModelRankers(
        text=None if text is None else reader.scorer(text, "text_ranker"),
        visual=None if visual is None else reader.scorer(visual, "visual_ranker"),
    )
    if unused := sorted(set(named) - reader.kinds):
        raise UserError(
            f"the rankers of this model have no {unused[0]}; "
            f"they have {', '.join(sorted(reader.kinds))}"
        )
    return rankers


def check_named(checkpoints: Mapping[str, str | os.PathLike]) -> None:
    """Raises `UserError` for a caller's checkpoint that can be nowhere; only judges have names."""
    for kind, path in checkpoints.items():
        name = str(path)
        is_name = kind == "judge" and ("/" not in name or HUB_NAME.fullmatch(name))
        if not is_name and not os.path.exists(name):
            raise UserError(f"no file or folder at {name}, which is named as ranker {kind}")


class _Reader:
    """Makes scorers of the config's values; `kinds` are those that it met."""

    def __init__(
        self, checkpoints: Mapping[str, str], folder: pathlib.Path | None, mesh: Mesh | None
    ):
        self.checkpoints, self.folder, self.mesh = checkpoints, folder, mesh
        self.kinds: set[str] = set()

    def scorer(self, values: Any, where: str) -> Scorer:
        """The scorer of one ranker; `where` is its place in config.json, for errors."""
        kind, fields = _fields(values, where)
        self.kinds.add(kind)
        match kind:
            case "ensemble":
                return Ensemble(self._members(fields["rankers"], f"{where}.rankers"))
            case "sound_activity":
                check(Finite, fields["sil_threshold"], f"config.json: {where}.sil_threshold")
                threshold = float(fields["sil_threshold"])
                activity = ActivityConfig(mode=fields["threshold_mode"], threshold_db=threshold)
                return SpanIoU(fields["metric"], activity)
            case "judge":
                name = self._checkpoint(kind, fields["checkpoint_or_model_id"], where)
                source = name or judge.HUB
                read = functools.partial(read_judge, source, self.mesh)
                return StoredScorer(kind, "text", JUDGE_AXES[0], read, source)
            case "clap":
                name = self._checkpoint(kind, fields["checkpoint"], where)
                read = functools.partial(read_clap, name, self.mesh)
                return StoredScorer(kind, "text", "clap", read, name)
            case _:
                name = self._checkpoint(kind, fields["checkpoint"], where)
                read = functools.partial(read_imagebind, name, self.mesh)
                return StoredScorer(kind, "video", "imagebind", read, name)

    def _members(self, members: Any, where: str) -> dict[str, tuple[Scorer, float]]:
        if not isinstance(members, Mapping) or not members:
            raise UserError(f"config.json: {where} must name rankers, not {shown(members)}")
        scorers = {}
        for name, member in members.items():
            if not isinstance(member, list | tuple) or len(member) != 2:
                raise UserError(
                    f"config.json: {where}.{name} must be [ranker, weight], not {shown(member)}"
                )
            check(Finite, member[1], f"config.json: the weight of {where}.{name}")
            scorers[name] = (self.scorer(member[0], f"{where}.{name}"), float(member[1]))
        return scorers

    def _checkpoint(self, kind: str, name: Any, where: str) -> str | None:
        """What the caller names, else what the config does: in the model's folder, else any."""
        if kind in self.checkpoints:
            return self.checkpoints[kind]
        if name is None:
            return None
        if not isinstance(name, str) or not name:
            raise UserError(f"config.json: the checkpoint of {where} must be a name or null")
        if self.folder is not None and (self.folder / name).exists():
            return str(self.folder / name)
        return name


def _fields(values: Any, where: str) -> tuple[str, dict[str, Any]]:
    """The kind of a ranker, and its other values with defaults filled in."""
    kind = values.get("kind") if isinstance(values, Mapping) else None
    if not isinstance(kind, str) or kind not in KEYS:
        raise UserError(
            f"config.json: {where} must be an object with a kind of {', '.join(KEYS)}, "
            f"not {shown(values)}"
        )
    rest = {key: value for key, value in values.items() if key != "kind"}
    if unknown := sorted(set(rest) - set(KEYS[kind])):
        raise UserError(
            f"config.json: unknown key {where}.{unknown[0]}, allowed are "
            f"kind, {', '.join(KEYS[kind])}"
        )
    return kind, KEYS[kind] | rest


def read_judge(name: str, mesh: Mesh | None = None) -> JudgeScorer:
    """The judge of a name as in `open_judge`, as a scorer. Raises as it does."""
    stored = open_judge(name)
    tokenizer = tokenizer_for(stored.tokenizer, normalizes=stored.normalizes_text)
    about = stored.extra.get("about", "")
    return JudgeScorer(stored.read(mesh), tokenizer, mesh=mesh, about=about)


def read_clap(name: str | None, mesh: Mesh | None = None) -> ClapScorer:
    """CLAP of a file, or of a folder with a file and a tokenizer, as a scorer.

    None means LAION's 630k-best on the hub. Raises as `load_clap`.
    """
    if name is None:
        path = find_folder(CLAP_REPOSITORY, (CLAP_FILE,)) / CLAP_FILE
    else:
        path = pathlib.Path(name)
    folder, file = (path, only_file(path)) if path.is_dir() else (path.parent, path)
    if file is None:
        raise UserError(f"{path} must hold one file of tensors of CLAP")
    tokenizer = str(folder) if has_tokenizer(folder) else CLAP_TOKENIZER
    return ClapScorer(load_clap(str(file), mesh=mesh), tokenizer_for(tokenizer), mesh=mesh)


def read_imagebind(name: str | None, mesh: Mesh | None = None) -> ImageBindScorer:
    """ImageBind of a file, as a scorer; the weights are for non-commercial use only.

    Raises `UserError` without a name, and as `load_imagebind`.
    """
    if name is None:
        raise UserError(
            "videos are ranked by ImageBind, whose weights are for non-commercial use: "
            f"get {IMAGEBIND_FILE} and name the file as ranker imagebind"
        )
    return ImageBindScorer(load_imagebind(name, mesh=mesh), mesh)
