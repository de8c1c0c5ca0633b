"""Every score on constructed sounds: true stems pass its filter, exchanged ones do not.

The separator here knows the truth: a text names a band of frequencies, a span a stretch of time.
"""

import dataclasses
import pathlib
import types

import numpy as np
import pytest

from sam_audio_jax.audio import Audio
from sam_audio_jax.data.config import LabelConfig
from sam_audio_jax.data.label_scores import LABEL_SCORES, failing
from sam_audio_jax.errors import UserError
from sam_audio_jax.infer.buckets import Group
from sam_audio_jax.infer.inputs import Item
from sam_audio_jax.infer.separate import SAMAudio
from sam_audio_jax.infer.stems import Stems
from sam_audio_jax.label import label_measures as measures
from sam_audio_jax.label.group_labels import GroupLabeller
from sam_audio_jax.label.label_inputs import LabelInput
from sam_audio_jax.label.label_settings import LabelSettings, chosen_scores
from sam_audio_jax.label.members import Member, SolvedMember
from sam_audio_jax.label.network_scores import LabelNetworks
from sam_audio_jax.label.prompt_kinds import PromptKind

RATE, HOP, SECONDS = 8_000, 80, 2
LOW_S = 0.8  # seconds in which the low tone sounds
BANDS = {"low tone": (0, 900), "high tone": (900, 4_000)}
WEIGHTLESS = ("silence", "remix", "agreement_noise", "agreement_prompt", "absent")
WEIGHTLESS += ("residual_silence", "span_iou")


def band(wave: np.ndarray, text: str) -> np.ndarray:
    low, high = BANDS.get(text, (0, 0))
    spectrum = np.fft.rfft(wave)
    hertz = np.fft.rfftfreq(len(wave), 1 / RATE)
    return np.fft.irfft(spectrum * ((low <= hertz) & (hertz < high)), len(wave)).astype(np.float32)


class TrueSeparator:
    """A pipeline that finds the band of a text, or nothing where it names none."""

    level_db = None
    long_audio = types.SimpleNamespace(longest=10_000)

    def __init__(self):
        self.compiled = self
        self.seeds = []

    def frames(self, item: Item) -> int:
        return -(-len(item.wave) // HOP)

    def solve_group(self, group, items, options):
        self.seeds.append(options.seed)
        targets = [band(item.wave, item.text) for item in items]
        return [
            Stems(target, item.wave - target, RATE)
            for item, target in zip(items, targets, strict=True)
        ]

    def on_batch(self, program, rows):
        return rows.reshape(len(rows), -1, HOP)[:, :, :4]


class TrueModel(SAMAudio):
    """A model around it, with a codec of which only the grid is asked for."""

    sample_rate = RATE
    codec = types.SimpleNamespace(config=types.SimpleNamespace(hop=HOP))

    def __init__(self):
        self.pipeline = TrueSeparator()


def labeller(scores, networks=None, prompts="text") -> GroupLabeller:
    settings = LabelSettings(scores=scores, prompts=prompts)
    return GroupLabeller(TrueModel(), settings, networks or LabelNetworks(), "truth")


def sounds(low_hz: float, high_hz: float) -> tuple[np.ndarray, np.ndarray]:
    """A low tone that ends, and a high one that goes on."""
    clock = np.arange(SECONDS * RATE) / RATE
    low = np.where(clock < LOW_S, 0.2 * np.sin(2 * np.pi * low_hz * clock), 0)
    return low.astype(np.float32), (0.1 * np.sin(2 * np.pi * high_hz * clock)).astype(np.float32)


def solved(*, exchanged: bool) -> list[SolvedMember]:
    """Two recordings of a low and a high tone, labelled as the low one."""
    found = []
    for number, tones in enumerate(((300.0, 2_000.0), (500.0, 3_000.0))):
        low, high = sounds(*tones)
        mixture = low + high
        source = LabelInput(
            id=f"item{number}",
            number=number + 1,
            audio=pathlib.Path(f"{number}.wav"),
            texts=("low tone",),
            spans=(("+", 0.0, LOW_S),),
        )
        item = Item(Audio(mixture[None], RATE), mixture, "low tone", (), flat=True)
        low = band(mixture, "low tone")
        stems = (mixture - low, low) if exchanged else (low, mixture - low)
        found.append(SolvedMember(Member(source=source, item=item, absent_text="bell"), *stems))
    return found


def scored(scores, *, exchanged: bool, networks=None):
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    return labeller(scores, networks).labels(group, solved(exchanged=exchanged))


@pytest.mark.parametrize("name", WEIGHTLESS)
def test_true_stems_pass(name):
    for label in scored(WEIGHTLESS, exchanged=False):
        assert LABEL_SCORES[name].passes(label.scores[name]), label.scores


# Whether the text of an absent sound finds nothing does not depend on the stems, and a tone that
# is always there is not silent.
@pytest.mark.parametrize("name", sorted({*WEIGHTLESS} - {"absent", "silence"}))
def test_exchanged_stems_do_not(name):
    for label in scored(WEIGHTLESS, exchanged=True):
        assert not LABEL_SCORES[name].passes(label.scores[name]), label.scores


def test_a_silent_target_passes_no_filter_of_the_target():
    whole = solved(exchanged=False)
    silent = [
        dataclasses.replace(one, target=np.zeros_like(one.target), residual=one.mixture)
        for one in whole
    ]
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    (first, _) = labeller(WEIGHTLESS).labels(group, silent)
    for name in WEIGHTLESS:
        assert LABEL_SCORES[name].passes(first.scores[name]) == (name == "absent"), name


def test_a_target_is_never_remixed_with_its_own_recording():
    first, second = solved(exchanged=False)
    same = dataclasses.replace(second.member.source, audio=first.member.source.audio)
    second = dataclasses.replace(second, member=dataclasses.replace(second.member, source=same))
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    with pytest.raises(UserError, match="remix needs the residual of another recording"):
        labeller(("remix",)).labels(group, [first, second])
    labeller(("remix",)).labels(group, solved(exchanged=False))
    hushed = [
        dataclasses.replace(one, residual=0 * one.residual) for one in solved(exchanged=False)
    ]
    with pytest.raises(UserError, match="remix needs the residual of another recording"):
        labeller(("remix",)).labels(group, hushed)  # it would be the target alone
    noise = 0.01 * np.random.default_rng(0).standard_normal(100).astype(np.float32)
    labels = labeller(("remix",)).labels(group, [first, second], lambda one: noise)
    assert all(LABEL_SCORES["remix"].passes(label.scores["remix"]) for label in labels)


def test_an_absent_sound_that_is_found_fails():
    members = solved(exchanged=False)
    found = [
        dataclasses.replace(one, member=dataclasses.replace(one.member, absent_text="high tone"))
        for one in members
    ]
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    for label in labeller(("absent",)).labels(group, found):
        assert not LABEL_SCORES["absent"].passes(label.scores["absent"])


def test_silence_is_absolute_at_the_level_of_the_recording():
    members = [
        dataclasses.replace(one, member=dataclasses.replace(one.member, gain=gain))
        for one, gain in zip(solved(exchanged=True), (1.0, 100.0), strict=True)
    ]
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    usual, quiet = labeller(("silence",)).labels(group, members)
    assert usual.scores["silence"] == 0.0
    assert quiet.scores["silence"] == 1.0  # 40 dB below -23 dBFS


def test_the_true_target_is_measured_and_changes_nothing():
    members = solved(exchanged=True)
    known = [
        dataclasses.replace(one, member=dataclasses.replace(one.member, true_target=one.residual))
        for one in members
    ]
    group = Group(SECONDS * RATE // HOP, 2, (0, 1))
    plain, measured = (labeller(("remix",)).labels(group, some) for some in (members, known))
    for one, other in zip(plain, measured, strict=True):
        np.testing.assert_array_equal(one.target, other.target)
        assert other.scores["remix"] == one.scores["remix"]
        assert other.scores["true_sisdri"] < -20 > other.scores["true_sisdr"]
        assert "true_sisdr" not in one.scores


class Spectrum:
    """A scorer that knows whether most of a sound is low: CLAP's cosine with "low tone"."""

    needs = "text"
    axes = ("clap",)

    def score(self, mixtures, candidates, lengths, sample_rate, prompts):
        assert [view.text for view in prompts] == ["low tone"] * len(prompts)
        low = [[np.abs(band(wave, "low tone")).mean() for wave in row] for row in candidates]
        share = np.array(low) / np.abs(candidates).mean(axis=2)
        return {"clap": 2 * np.clip(share, 0, 1) - 1}


@pytest.mark.parametrize("exchanged", [False, True])
def test_clap_looks_at_target_and_residual(exchanged):
    networks = LabelNetworks({"clap": Spectrum()})
    for label in scored(("clap_target", "clap_residual"), exchanged=exchanged, networks=networks):
        for name in ("clap_target", "clap_residual"):
            assert LABEL_SCORES[name].passes(label.scores[name]) != exchanged, label.scores


def test_scores_without_their_networks_are_refused():
    inputs = [LabelInput(id="a", number=1, texts=("dog",))]
    for name, option in (("clap_target", "clap"), ("complexity", "aesthetics")):
        with pytest.raises(UserError, match=f"--filters {name} needs --scorers {option}=PATH"):
            chosen_scores([name], PromptKind("text"), (), inputs)
    assert "clap_target" not in chosen_scores((), PromptKind("text"), (), inputs)
    assert "clap_target" in chosen_scores((), PromptKind("text"), ("clap",), inputs)


def test_a_threshold_on_a_score_that_is_not_there_is_an_error():
    assert failing({"remix": 3.0, "silence": 0.5}, {"remix": 5.0, "silence": 0.95}, "x") == [
        "remix"
    ]
    for scores in ({}, {"remix": None}, {"remix": float("nan")}):
        with pytest.raises(UserError, match=r"label x has no score remix"):
            failing(scores, {"remix": 5.0}, "label x")


def test_every_score_has_a_threshold_in_the_config():
    fields = {field.name for field in dataclasses.fields(LabelConfig)}
    assert fields - {"folder", "share", "most"} == set(LABEL_SCORES)


def test_coverage_of_a_mask_is_its_mean_over_the_frames():
    masks = [np.zeros((4, 4), bool), np.ones((4, 4), bool)]
    assert measures.mask_coverage(iter(masks)) == 0.5
