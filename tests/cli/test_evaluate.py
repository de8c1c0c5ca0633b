"""`sam-audio evaluate`: a wrong call gets one line and status 2, and leaves nothing behind."""

import pytest

from sam_audio_jax.cli import evaluate
from sam_audio_jax.cli.evaluate import main
from sam_audio_jax.eval.score_store import measuring_into
from sam_audio_jax.process_rank import ProcessRank

BENCH = ("--checkpoint", "tiny", "--bench", "sam-audio-bench")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        ([], "required: --out"),
        (["--out", "o"], "give either --workdir DIR or --checkpoint PATH"),
        (["--compare", "a", "b", "--out", "o"], "no results at a: give the folder that evaluate"),
        (
            ["--compare", "a", "b", "--checkpoint", "tiny", "--out", "o"],
            "--checkpoint is of an eval",
        ),
        (["--checkpoint", "tiny", "--rows", "a", "b", "--out", "o"], "--rows is of --compare A B"),
        (["--checkpoint", "tiny", "--workdir", "w", "--out", "o"], "give either --workdir"),
        (["--workdir", ".", "--bench", "embedded", "--out", "o"], ". is not the workdir of a run"),
        (["--checkpoint", "tiny", "--bench", "nowhere", "--out", "o"], "bench 'nowhere' has no"),
        (["--checkpoint", "nowhere/at/all", "--out", "o"], "nowhere/at/all"),
        (["--checkpoint", "tiny", "--out", "."], "--out . exists"),
        (["nothing.py", "--workdir", "w", "--out", "o"], "no config file nothing.py"),
        (["--checkpoint", "tiny", "--prompts", "image", "--out", "o"], "invalid choice: 'image'"),
        (["--checkpoint", "tiny", "--out", "o", "--seed", "-1"], "--seed: -1 must be 0 or more"),
        (["--checkpoint", "tiny", "--out", "o", "--limit", "0"], "--limit: 0 must be 1 or more"),
        (["--checkpoint", "tiny", "--out", "o", "--steps", "x"], "invalid int value: 'x'"),
        (
            ["--checkpoint", "tiny", "--out", "o", "--candidates", "1001"],
            "candidates=1001 must be a whole number from 1 to 1000",
        ),
        (
            ["--checkpoint", "tiny", "--out", "o", "--steps", "1000000"],
            "steps=1000000 must be a whole number from 1 to 100000",
        ),
        (
            ["--checkpoint", "tiny", "--out", "o", "--ranker", "judge=judge-tiny"],
            "--ranker chooses among candidates: give --candidates 2 or more",
        ),
        (
            ["--checkpoint", "tiny", "--out", "o", "--span-predictor", "spans"],
            "--span-predictor needs --predict-spans",
        ),
        (["--checkpoint", "tiny", "--stps", "3", "--out", "o"], "--stps"),
        ([*BENCH, "--out", "o"], "--bench sam-audio-bench needs --media DIR"),
        ([*BENCH, "--media", "none", "--out", "o"], "--media none is no folder"),
        ([*BENCH, "--media", ".", "--out", "o"], "holds no table of SAM Audio-Bench"),
        ([*BENCH, "--prompts", "text", "--out", "o"], "--prompts is of fixed mixtures"),
        (["--checkpoint", "tiny", "--preset", "text", "--out", "o"], "--preset is of --bench sam"),
        (["--checkpoint", "tiny", "--scorers", "ear=x", "--out", "o"], "--scorers 'ear=x' must be"),
        (
            ["--checkpoint", "tiny", "--scorers", "imagebind=x", "--out", "o"],
            "--scorers imagebind scores targets by their masked video, and what is run has none",
        ),
    ],
)
def test_wrong_use(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(argv) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("prompt", "scorer", "message"),
    [
        ('"text": "a dog"', "imagebind", "by their masked video, and what is run has none"),
        ('"spans": [["+", 0, 1]]', "judge", "--scorers judge scores targets by a text, and what"),
        ('"spans": [["+", 0, 1]]', "clap", "--scorers clap scores targets by a text, and what"),
    ],
)
def test_a_scorer_needs_a_manifest_with_its_prompts(
    prompt, scorer, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text(f'{{"id": "a", "audio": "a.wav", {prompt}}}\n')
    argv = ["--checkpoint", "tiny", "--bench", "items.jsonl", "--scorers", f"{scorer}=x"]
    assert main([*argv, "--out", "o"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / "o").exists()


def test_distances_need_true_stems(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "items.jsonl").write_text('{"id": "a", "audio": "a.wav", "text": "a dog"}\n')
    argv = ["--checkpoint", "tiny", "--bench", "items.jsonl", "--distances", "sdr", "--out", "o"]
    assert main(argv) == 2
    assert "--distances compares with true stems, and what is" in capsys.readouterr().err


def test_a_second_call_does_not_measure_into_the_folder_of_the_first(tmp_path, capsys):
    out = tmp_path / "out"
    with measuring_into(out, ProcessRank()):
        assert main(["--checkpoint", "tiny", "--out", str(out)]) == 2
    assert "another process is writing to" in capsys.readouterr().err
    with measuring_into(out, ProcessRank(0, 2)), measuring_into(out, ProcessRank(1, 2)):
        assert main(["--checkpoint", "tiny", "--out", str(out)]) == 2
    assert not list(tmp_path.iterdir())


def test_a_judge_that_ranks_and_measures_is_read_once(tmp_path, monkeypatch, capsys):
    called = {}

    def evaluate_model(model, suite, out, **options):
        called.update(options, model=model, suite=suite)

    monkeypatch.setattr(evaluate, "evaluate_model", evaluate_model)
    argv = ["--checkpoint", "tiny", "--candidates", "2", "--dtype", "bfloat16"]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    judge = called["measures"].scorers["judge"]
    assert judge is called["model"].pipeline.rankers.model.text.load()
    assert called["loaded"] == {"checkpoint": "tiny", "dtype": "bfloat16", "adapters": []}
    assert "is done" in capsys.readouterr().err
