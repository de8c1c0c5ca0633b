"""CLAP as a scorer: no result depends on the batch, the padding or the run; long recordings."""

import subprocess
import sys

import jax
import numpy as np
import pytest
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

from sam_audio_jax import parallel
from sam_audio_jax.encoders.tokenizer import PretrainedTokenizer, tokenizer_for
from sam_audio_jax.errors import UserError
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.scorers import front_end
from sam_audio_jax.scorers.clap import Clap, as_wav, quantise
from sam_audio_jax.scorers.clap_scorer import ClapScorer, ClapScoring
from sam_audio_jax.scorers.scorer import PromptView, Scorer
from tests.children import ROOT, environment
from tests.tiny import CLAP, filled

RATE, SIZE = CLAP.sample_rate, CLAP.samples
TEXTS = ("dog", "Cat!", "dog")


def roberta_tokenizer() -> PretrainedTokenizer:
    """RoBERTa's special tokens around single bytes."""
    special = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3}
    letters = {c: i + 4 for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    pairs = Tokenizer(models.BPE(special | letters, [], unk_token="<unk>"))
    pairs.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pairs.decoder = decoders.ByteLevel()
    pairs.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    return PretrainedTokenizer(
        transformers.PreTrainedTokenizerFast(tokenizer_object=pairs, **names)
    )


@pytest.fixture(scope="module")
def network() -> Clap:
    return filled(lambda: Clap(CLAP, rngs=Rngs(0)))


def scorer_of(network: Clap, mesh=None, **scoring) -> ClapScorer:
    return ClapScorer(network, roberta_tokenizer(), ClapScoring(batch=4, **scoring), mesh)


@pytest.fixture(scope="module")
def scorer(network) -> ClapScorer:
    return scorer_of(network)


def batch(lengths=(70, SIZE, 250)):
    """Recordings of several lengths with two candidates each, noise where they are padded."""
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 0.3, (len(lengths), 2, max(lengths))).astype(np.float32)
    return waves[:, 0], waves, np.array(lengths), RATE, [PromptView(text=text) for text in TEXTS]


def test_scores_are_cosines_and_depend_on_no_neighbour(scorer):
    assert isinstance(scorer, Scorer)
    mixtures, waves, lengths, rate, prompts = batch()
    scores = scorer.score(mixtures, waves, lengths, rate, prompts)["clap"]
    assert scores.shape == (3, 2)
    assert scores.dtype == np.float32
    assert np.abs(scores).max() <= 1 + 1e-6
    assert np.ptp(scores) > 0.01
    for row, length in enumerate(lengths):
        alone = waves[row : row + 1, :, :length]
        view = prompts[row : row + 1]
        again = scorer.score(alone[:, 0], alone, np.array([length]), rate, view)["clap"]
        np.testing.assert_allclose(scores[row], again[0], atol=2e-6)
    other = scorer.score(mixtures, waves, lengths, rate, prompts[1:] + prompts[:1])["clap"]
    assert np.abs(other[:2] - scores[:2]).min() > 1e-4


@jax.jit
def embed(network, wave):
    """Without the front end's preparation of the wave."""
    return network.audio_projection(network.audio(network.log_mel(wave)))


def test_short_recordings_are_repeated_and_quantised(scorer, network):
    (wave,) = batch()[1][0, :1, :50]
    whole = np.zeros((1, SIZE), np.float32)
    whole[0, :100] = np.trunc(np.tile(np.clip(wave, -1, 1), 2) * 32_767) / 32_767
    np.testing.assert_allclose(scorer.embed_waves([wave], RATE), embed(network, whole), atol=2e-6)


def test_every_16_bit_integer_is_exact():
    whole = np.arange(-32_768, 32_768)
    exact = (whole / np.float32(32_767)).astype(np.float32)
    np.testing.assert_array_equal(jax.jit(quantise)(exact[1:]), exact[1:])
    np.testing.assert_array_equal(
        jax.jit(as_wav)((whole / 32_768).astype(np.float32)), whole / 32_768
    )
    halves = np.array([0.5, 1.5, -0.5, -1.5, 40_000, -40_000], np.float32) / 32_768
    np.testing.assert_array_equal(jax.jit(as_wav)(halves) * 32_768, [0, 2, 0, -2, 32_767, -32_768])
    assert np.isnan(jax.jit(quantise)(np.float32([np.nan]))).all()


def test_the_crop_is_the_middle_or_drawn_from_seed_and_length(scorer, network):
    long = batch()[1][2, :, :250]
    middle = scorer.embed_waves(list(long), RATE)
    start = (250 - SIZE) // 2
    cut = scorer.embed_waves([wave[start : start + SIZE] for wave in long], RATE)
    np.testing.assert_array_equal(middle, cut)
    inside = jax.jit(lambda net, wave: net.tower_input(wave))(network, long)
    np.testing.assert_array_equal(inside, jax.jit(quantise)(long[:, start : start + SIZE]))
    places = [scorer_of(network, crop_seed=seed)._parts(250) for seed in range(8)]
    assert len({start for ((start, _),) in places}) > 4
    assert all(0 <= start <= 250 - SIZE and size == SIZE for ((start, size),) in places)
    ((start, _),) = places[3]
    drawn = scorer_of(network, crop_seed=3).embed_waves(list(long), RATE)
    cut = scorer.embed_waves([wave[start : start + SIZE] for wave in long], RATE)
    np.testing.assert_array_equal(drawn, cut)


def test_windows_are_joined_by_their_lengths(scorer, network):
    wave = batch()[1][2, 0, :250]
    parts = [wave[:SIZE], wave[SIZE : 2 * SIZE], wave[2 * SIZE :]]
    vectors = scorer.embed_waves(parts, RATE).astype(np.float64)
    total = sum(len(part) * vector for part, vector in zip(parts, vectors, strict=True))
    windows = scorer_of(network, long="windows")
    joined = windows.embed_waves([wave, wave[:SIZE]], RATE)
    np.testing.assert_allclose(joined[0], total / np.linalg.norm(total), atol=2e-6)
    np.testing.assert_allclose(joined[1], vectors[0], atol=2e-6)
    assert np.abs(joined[0] - scorer.embed_waves([wave], RATE)).max() > 1e-3


def test_through_a_wav_file_and_from_another_rate(scorer, network):
    wave = batch()[1][0, 0, :90]
    via = scorer_of(network, via_wav=True).embed_waves([wave], RATE)
    written = np.asarray(jax.jit(as_wav)(wave))
    np.testing.assert_allclose(via, scorer.embed_waves([written], RATE), atol=2e-6)
    resample = jax.jit(front_end.resample, static_argnums=(1, 2))
    resampled = np.asarray(resample(wave[None], 1_000, RATE)[0])
    one, other = scorer.embed_waves([wave], 1_000), scorer.embed_waves([resampled], RATE)
    np.testing.assert_allclose(one, other, atol=1e-5)


def test_what_cannot_be_scored(scorer, network):
    with pytest.raises(UserError, match="without samples"):
        scorer.embed_waves([np.zeros(0, np.float32)], RATE)
    with pytest.raises(UserError, match="it has 384 tokens and padding token 0, the network reads"):
        ClapScorer(network, tokenizer_for("byt5"))


def test_a_text_that_is_too_long_is_reported(scorer):
    with pytest.warns(
        UserWarning, match="has 9 tokens, of which the first 6 are read, to 'barkin'"
    ):
        cut = scorer.embed_texts(["barking!!", "barkin"])
    np.testing.assert_allclose(cut[0], cut[1], atol=2e-6)


@pytest.mark.long
def test_two_devices_score_as_one():
    command = [sys.executable, "-m", "tests.scorers.test_clap_scorer"]
    subprocess.run(command, env=environment(2), cwd=ROOT, check=True, timeout=600)


def compare_devices() -> None:
    """Run by the test above, as the number of devices is fixed when JAX starts."""
    network = filled(lambda: Clap(CLAP, rngs=Rngs(0)))
    meshes = None, parallel.make_mesh(parallel.MeshConfig(fsdp=2))
    one, two = (scorer_of(network, mesh).score(*batch())["clap"] for mesh in meshes)
    np.testing.assert_allclose(two, one, atol=2e-6)


if __name__ == "__main__":
    compare_devices()
