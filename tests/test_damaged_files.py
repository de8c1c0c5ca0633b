"""Small files from elsewhere: each that is damaged or hostile is one line, or is left out."""

import io
import json
import shutil
import zipfile

import numpy as np
import pytest

from sam_audio_jax.convert.folder import open_folder
from sam_audio_jax.convert.model_files import SHIPPED
from sam_audio_jax.errors import UserError
from sam_audio_jax.eval import page
from sam_audio_jax.eval.mixtures import load_bench
from sam_audio_jax.files import check_file_name
from sam_audio_jax.infer.inputs import load_noise
from sam_audio_jax.video.masks import read_masks
from sam_audio_jax.workdir import Workdir, find_checkpoint


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc/x", "a/b", ".x", "a\0b", "\ud800"])
def test_names_that_are_paths_are_refused(name):
    with pytest.raises(UserError, match=r"line 3: id .* must serve as a file name"):
        check_file_name(name, "line 3")
    check_file_name("a b\\c", "line 3")


def header(shape: tuple[int, ...], dtype: str = "|u1", fortran: bool = False) -> bytes:
    stream = io.BytesIO()
    values = {"descr": dtype, "fortran_order": fortran, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, values)
    return stream.getvalue()


def test_a_header_that_claims_more_than_there_is(tmp_path):
    for shape in ((10**14,), (10**7, 10**7), (2**62, 4)):
        (tmp_path / "noise.npy").write_bytes(header(shape, "<f4") + b"1234")
        with pytest.raises(UserError, match=r"noise\.npy is no \.npy array"):
            load_noise(tmp_path / "noise.npy")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (header((5, 10**7, 10**7)), "is too large"),
        (header((10**14,)), "must be bool or uint8"),
        (header((5, 4, 3), "<f8"), "not float64"),
        (header((5, 4, 3), "|O"), "pickled"),
        (header((5, 4, 3)) + bytes(30), "no .npz file of numbers"),
        (b"nonsense", "no .npz file of numbers"),
    ],
)
def test_masks_whose_header_is_wrong(tmp_path, content, message):
    with zipfile.ZipFile(tmp_path / "mask.npz", "w") as file:
        file.writestr("mask.npy", content)
    with pytest.raises(UserError, match=message):
        list(read_masks(tmp_path / "mask.npz", "item 1"))


def test_a_mask_that_unpacks_to_gigabytes_is_read_by_the_frame(tmp_path):
    with (
        zipfile.ZipFile(tmp_path / "mask.npz", "w", zipfile.ZIP_DEFLATED) as file,
        file.open("mask.npy", "w", force_zip64=True) as member,
    ):
        member.write(header((10**10, 4, 3)))
        member.write(bytes(120))
    masks = read_masks(tmp_path / "mask.npz", "item 1")
    assert next(masks)(4, 3).shape == (4, 3)


def test_text_in_tables_is_escaped():
    wrong = "<script>alert(1)</script>"
    text = page.table({wrong: wrong}, {wrong: {wrong: [None]}})
    assert "<script" not in text
    assert text.count("&lt;script") == 4


EVENT = {"clip": "a", "start": 0, "samples": 10, "offset": 0, "gain": 1.0}
LINE = {
    "id": "a",
    "setting": "sfx",
    "caption": "a",
    "samples": 100,
    "sample_rate": 8000,
    "target": [EVENT],
    "residual": [EVENT],
}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "../../escaped"},
        {"id": 3},
        {"setting": "all"},
        {"setting": "a/b"},
        {"caption": None},
        {"samples": 1e12},
        {"samples": 10**12},
        {"sample_rate": 0},
        {"residual_captions": [1]},
        {"residual_captions": "music"},
        {"spans": [["a", 1]]},
        {"spans": [[0.0, 10**400]]},
        {"target": [EVENT | {"clip": ["a"]}]},
        {"target": [EVENT | {"gain": True}]},
        {"target": {"clip": "a"}},
        {"residual": ["a"]},
        {"mixture_peak": [1]},
    ],
    ids=str,
)
def test_a_mixture_that_means_nothing_names_its_line(tmp_path, change):
    (tmp_path / "manifest.jsonl").write_text(
        json.dumps({"id": "a", "path": "a.wav", "samples": 100, "sample_rate": 8000}) + "\n"
    )
    (tmp_path / "mixtures.jsonl").write_text(json.dumps(LINE | change) + "\n")
    with pytest.raises(UserError) as caught:
        load_bench(tmp_path)
    if "manifest.jsonl" not in str(caught.value):
        assert "mixtures.jsonl line 1" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(SHIPPED / "tiny", tmp_path / "model", symlinks=True)


def change(path, **values):
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | values))


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("config.json", {"audio_codec": None}),
        ("config.json", {"text_encoder": []}),
        ("config.json", {"transformer": []}),
        ("config.json", {"num_anchors": "3"}),
        ("config.json", {"in_channels": None}),
        ("t5/config.json", {"num_layers": 10**9}),
        ("t5/config.json", {"d_model": 6.5}),
        ("sam_audio_jax.json", {"latents": {"median": 1}}),
        ("sam_audio_jax.json", {"latents": {"std": float("nan")}}),
        ("sam_audio_jax.json", {"tokenizer": "../../../etc"}),
        ("sam_audio_jax.json", {"tokenizer": 3}),
        ("sam_audio_jax.json", {"sampler": {"method": "rm -rf"}}),
        ("sam_audio_jax.json", {"sampler": {"steps": "8"}}),
    ],
    ids=str,
)
def test_a_model_folder_of_odd_form_is_one_line(folder, file, values):
    change(folder / file, **values)
    with pytest.raises(UserError) as caught:
        open_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("section", ["audio_codec", "transformer"])
@pytest.mark.parametrize("value", [10**9, "6", 6.5, 0, -1, None, [], {}])
def test_each_number_of_a_section_is_checked(folder, section, value):
    key = {"audio_codec": "sample_rate", "transformer": "n_layers"}[section]
    content = json.loads((folder / "config.json").read_text())
    content[section][key] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        open_folder(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "null", "3", "[" * 50_000, '{"weight_map": []}'])
def test_files_that_hold_no_object(folder, text):
    for name in ("config.json", "sam_audio_jax.json"):
        kept = (folder / name).read_text()
        (folder / name).write_text(text)
        if not (name == "sam_audio_jax.json" and text[0] == "{"):
            with pytest.raises(UserError):
                open_folder(folder)
        (folder / name).write_text(kept)


@pytest.mark.parametrize("text", ["[]", "{}", "null", '{"experiment": 1}', "\0\0\0"])
def test_a_damaged_config_of_a_run_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"config\.json"):
        Workdir(tmp_path).read_config()
    with pytest.raises(UserError) if text not in ("{}",) else io.StringIO():
        find_checkpoint(str(tmp_path))


def test_lines_of_metrics_that_cannot_be_read_are_left_out(tmp_path):
    good = {"step": 3, "group": "train", "loss": 0.5}
    damaged = [b"[1]", b"3", b'{"step"', b"\0" * 40, b"\xff\xfe", b'{"loss": 1}', b'{"step": "a"}']
    damaged += [b'{"step": 3, "group": "train", "loss": []}', b"[" * 50_000]
    lines = [json.dumps(good).encode(), *damaged, json.dumps(good).encode()]
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join(lines))
    assert Workdir(tmp_path).read_metrics() == [good, good]


@pytest.mark.parametrize(
    "content", [b"[]", b"\x80\x03", b'{"a": 1}', b'{"3": null}', b'{"3": "1"}', b'{"metric": 1}']
)
def test_damaged_scores_are_the_users_error(tmp_path, content):
    (tmp_path / "scores.json").write_bytes(content)
    with pytest.raises(UserError, match=r"scores\.json"):
        Workdir(tmp_path).read_scores()
