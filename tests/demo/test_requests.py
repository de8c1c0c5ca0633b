"""The page's server by HTTP: a recording in, stems out; whatever is wrong gets its sentence."""

import concurrent.futures
import io

import av
import numpy as np
import pytest
import scipy.io.wavfile
from PIL import Image

from sam_audio_jax.demo import job_request
from sam_audio_jax.demo.limits import Limits
from sam_audio_jax.encoders.vision import VisionConfig, VisionEncoder
from sam_audio_jax.infer.memory import resident
from sam_audio_jax.nn.rngs import Rngs
from sam_audio_jax.video.masks import StretchedMasks
from tests import tiny
from tests.demo import http
from tests.demo.conftest import LIMITS, SECONDS, make_model, wav_bytes
from tests.video.clips import frames_at

DOG = [{"text": "dog", "spans": [["+", 0.1, 0.5]]}]


def read(body: bytes) -> np.ndarray:
    return scipy.io.wavfile.read(io.BytesIO(body))[1].T


def stems_of(client, job, facts) -> list[np.ndarray]:
    assert facts["state"] == "done", facts
    count = len(facts["stems"])
    return [read(client.ask("GET", f"/api/jobs/{job}/stems/{n}.wav").body) for n in range(count)]


def test_a_recording_goes_in_and_the_stems_of_separate_come_out(client, model, wave, street):
    recording = client.upload(street, "../../etc/my%20street.wav")
    assert recording["name"] == "my street.wav"
    assert (recording["seconds"], recording["channels"]) == (SECONDS, 2)
    path = f"/api/recordings/{recording['id']}"
    np.testing.assert_array_equal(read(client.ask("GET", f"{path}/mixture.wav").body), wave)
    shape = recording["drawing"]
    drawing = client.ask("GET", f"{path}/drawing").body
    assert len(drawing) == 2 * shape["columns"] + shape["bands"] * shape["frames"]

    job = client.start(recording["id"], prompts=DOG, seed=3)["id"]
    facts = client.finish(job)
    target, residual = stems_of(client, job, facts)
    expected = model.separate(
        wave, text="dog", spans=[("+", 0.1, 0.5)], sample_rate=16_000, seed=3, refine="wiener"
    )
    np.testing.assert_array_equal(target, expected.target)
    np.testing.assert_array_equal(residual, expected.residual)
    np.testing.assert_array_equal(target + residual, wave)
    names = [stem["label"] for stem in facts["stems"]]
    assert names == ["target", "residual"]
    answer = client.ask("GET", f"/api/jobs/{job}/stems/0.wav")
    assert answer.headers["content-disposition"].endswith("my%20street.target.wav")
    shape = facts["stems"][0]["drawing"]
    drawing = client.ask("GET", f"/api/jobs/{job}/stems/0/drawing").body
    assert len(drawing) == 2 * shape["columns"] + shape["bands"] * shape["frames"]

    assert client.ask("DELETE", path).status == 204
    assert client.ask("GET", f"/api/jobs/{job}").status == 404
    assert not (client.folder / recording["id"]).exists()


def test_several_sounds_are_stems_that_add_up(client, model, wave, street):
    recording = client.upload(street)["id"]
    prompts = [{"text": "dog"}, {"text": "cat", "spans": [["-", 0, 0.5]]}]
    job = client.start(recording, prompts=prompts, joint=True)["id"]
    facts = client.finish(job)
    assert [stem["label"] for stem in facts["stems"]] == ["dog", "cat", "rest"]
    assert [stem["prompt"] for stem in facts["stems"]] == [0, 1, None]
    waves = stems_of(client, job, facts)
    np.testing.assert_allclose(np.sum(waves, axis=0), wave, atol=1e-6)
    expected = model.separate(
        wave, ["dog", "cat"], [None, [("-", 0, 0.5)]], sample_rate=16_000, rest=True
    )
    np.testing.assert_array_equal(waves[1], expected["cat"].target)
    np.testing.assert_array_equal(waves[2], expected.rest)


def test_wrong_uploads(client, street):
    silent = wav_bytes(np.zeros((1, 800), "f4"))
    long = wav_bytes(np.zeros((1, 13 * 8_000), "f4"), 8_000)
    cases = {
        "text.wav": (b"no sound in here", 422, "text.wav cannot be decoded as sound"),
        "empty.wav": (b"", 422, "the file is empty"),
        "headers.wav": (street[:44], 422, "headers.wav has no samples"),
        "silent.wav": (silent, 422, "silent.wav is silent (all zeros)"),
        "long.wav": (long, 422, "long.wav is too long: this page takes up to 0.2 minutes"),
        "list.m3u8": (b"#EXTM3U\n/etc/passwd\n", 422, "list.m3u8 cannot be decoded as sound"),
        "list.txt": (b"ffconcat version 1.0\nfile a.wav\n", 422, "list.txt cannot be decoded"),
        "large.wav": (bytes(2_000_000), 413, "the file is too large: this page takes up to 1 MB"),
    }
    before = list(client.folder.iterdir())
    for name, (data, status, message) in cases.items():
        answer = client.ask("POST", f"/api/recordings?name=/home/me/{name}", data)
        assert (answer.status, answer.error[: len(message)]) == (status, message), name
        assert str(client.folder) not in answer.error
        assert "/home" not in answer.error
    assert list(client.folder.iterdir()) == before


def test_wrong_requests(client, street):
    recording = client.upload(street)["id"]
    more = [{"text": f"dog {n}"} for n in range(LIMITS.prompts + 1)]
    cases = [
        ({"prompts": []}, "nothing says what to separate from street.wav"),
        ({"prompts": [{"text": "..."}]}, "nothing says what to separate from street.wav"),
        ({"prompts": [{"spans": [["+", 0.5, 9]]}]}, "span + 0.5-9 s of street.wav must have start"),
        ({"prompts": [{"spans": [["*", 0, 1]]}]}, "span token '*' of street.wav is unknown"),
        ({"prompts": [{"spans": 1}]}, "spans of street.wav must be a list like"),
        ({"prompts": [{"text": "dog", "span": []}]}, "field 'span' is unknown; allowed: spans"),
        ({"prompts": [{"text": 5}]}, "text of street.wav must be a string, not 5"),
        ({"prompts": [{"text": "d" * 1_001}]}, "a text of 1001 characters is too long"),
        (
            {"prompts": [{"text": "dog"}, {"text": "dog"}]},
            "text 'dog' of street.wav is there twice",
        ),
        ({"prompts": more}, "7 prompts are too many: this page takes 6"),
        ({"prompts": "dog"}, "prompts must be a list of objects"),
        ({"prompts": DOG, "steps": 0}, "steps=0 must be"),
        ({"prompts": DOG, "seed": "x"}, "seed='x' must be"),
        ({"prompts": DOG, "refine": 1}, "refine=1 must be true or false"),
        ({"prompts": DOG, "output": "/etc"}, "field 'output' is unknown"),
        ({"prompts": [], "box": [0, 0, 2, 1]}, "box [0, 0, 2, 1] must be left, top, right"),
        ({"prompts": [], "box": [0.5, 0, 0.5, 1]}, "box [0.5, 0, 0.5, 1] is empty"),
        ({"prompts": [], "box": [0, 0, 1, 1]}, "street.wav has no picture to draw a box on"),
    ]
    for body, message in cases:
        answer = client.ask("POST", "/api/jobs", {"recording": recording} | body)
        assert (answer.status, answer.error[: len(message)]) == (422, message)
    for data, status, message in (
        (b"[1]", 422, "the body must be a JSON object"),
        (b"{", 422, "the body must be a JSON object"),
        (b"[" * 60_000, 422, "the body must be a JSON object"),
        (bytes(70_000), 413, "the request is too large"),
        (b'{"recording": "../secret"}', 404, "this recording is gone"),
    ):
        answer = client.ask("POST", "/api/jobs", data)
        assert (answer.status, answer.error[: len(message)]) == (status, message)


def test_wrong_addresses_and_methods(client):
    cases = [
        ("GET", "/api/jobs/nothing", 404, "this separation is gone"),
        ("GET", "/api/recordings/nothing/mixture.wav", 404, "this recording is gone"),
        ("GET", "/api/recordings/..%2f..%2fetc/drawing", 404, "there is nothing under"),
        ("GET", "/../app.py", 404, "there is nothing under this address"),
        ("GET", "/page/index.html", 404, "there is nothing under this address"),
        ("PUT", "/api/jobs", 405, "PUT is not allowed here"),
        ("GET", "/api/recordings", 405, "GET is not allowed here"),
    ]
    for method, path, status, message in cases:
        answer = client.ask(method, path)
        assert (answer.status, answer.error[: len(message)]) == (status, message), path


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 403),
        ({"Host": "127.0.0.1.evil.example:7860"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Host": "localhost:9", "Origin": "http://localhost:9"}, 404),
        ({"Host": "[::1]:7860"}, 404),
    ],
)
def test_other_sites_are_refused(client, headers, status):
    assert client.ask("DELETE", "/api/jobs/nothing", headers=headers).status == status


def test_the_page_is_of_this_server_alone(client):
    answer = client.ask("GET", "/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "access-control-allow-origin" not in answer.headers
    text = answer.body.decode()
    assert "http://" not in text
    assert "https://" not in text
    assert "<script>" not in text
    assert " style=" not in text
    for name in ("main.js", "page.css", "icon.svg"):
        assert client.ask("GET", f"/{name}").status == 200


def test_a_video_shows_its_frames_and_what_it_cannot_do(client, film):
    recording = client.upload(film, "film.mkv")
    assert recording["has_video"]
    frame = f"/api/recordings/{recording['id']}/frame.jpg"
    answer = client.ask("GET", f"{frame}?time=0.52")
    picture = np.asarray(Image.open(io.BytesIO(answer.body)))
    assert picture.shape == (24, 32, 3)
    np.testing.assert_allclose(picture, 16 + 8 * 5, atol=4)  # the sixth frame
    for time in ("9", "nan", "x", "-1"):
        assert client.ask("GET", f"{frame}?time={time}").status == 422
    body = {"recording": recording["id"], "box": [0, 0, 1, 1]}
    answer = client.ask("POST", "/api/jobs", body | {"prompts": []})
    assert answer.error == "this model has no vision tower: it cannot be prompted by video"
    two = [{"text": "dog"}, {"text": "cat"}]
    answer = client.ask("POST", "/api/jobs", body | {"prompts": two})
    assert answer.error.startswith("a box in the video prompts one sound")


@pytest.mark.long
def test_a_box_separates_as_the_same_mask_does(film, wave, tmp_path):
    """In a model of its own, with a vision tower, which compiles other programs."""
    (tmp_path / "film.mkv").write_bytes(film)
    vision = VisionConfig(
        image_size=8, patch_size=4, width=16, depth=1, heads=2, mlp=24, output=4, pool_heads=2
    )
    model = make_model(vision=tiny.filled(lambda: VisionEncoder(vision, rngs=Rngs(0))))
    with http.running(model, LIMITS) as client:
        assert client.ask("GET", "/api/model").json["why_no_video"] is None
        recording = client.upload(film, "film.mkv")["id"]
        box = [0.25, 0.5, 0.75, 1]
        job = client.start(recording, prompts=[], box=box)["id"]
        target, _ = stems_of(client, job, client.finish(job))
    mask = [[8, 12, 24, 24]] * 10
    path = tmp_path / "film.mkv"
    expected = model.separate(path, video=path, mask=mask, refine="wiener")
    np.testing.assert_array_equal(target, expected.target)
    whole = model.separate(path, video=path, refine="wiener")
    assert np.abs(target - whole.target).max() > 1e-5


def test_a_box_is_the_mask_of_every_frame(film, tmp_path):
    (tmp_path / "film.mkv").write_bytes(film)
    request = job_request.parse({"box": [0.25, 0.5, 0.75, 1], "prompts": []}, 1.0, "film", LIMITS)
    times = np.array([0.0, 0.5])
    mask = StretchedMasks(request.mask(), 10)
    boxed = frames_at(tmp_path / "film.mkv", times, mask=mask)
    same = frames_at(tmp_path / "film.mkv", times, mask=[[8, 12, 24, 24]] * 10)
    np.testing.assert_array_equal(boxed, same)


@pytest.mark.parametrize("megabytes", [16, pytest.param(1_024, marks=pytest.mark.long)])
def test_an_upload_above_the_limit_is_answered_and_not_kept(client, megabytes):
    """Nobody knows its length before it ends; neither the disk nor the memory takes it."""
    files, memory = list(client.folder.iterdir()), resident()
    pieces = (bytes(65_536) for _ in range(16 * megabytes))
    answer = client.ask("POST", "/api/recordings?name=a.wav", pieces)
    assert answer.status == 413
    assert answer.error == "the file is too large: this page takes up to 1 MB"
    assert list(client.folder.iterdir()) == files
    assert resident() - memory < 50e6


def test_an_upload_that_stalls_is_given_up(client):
    before = list(client.folder.iterdir())
    headers = {"Content-Length": "1000"}
    answer = client.ask("POST", "/api/recordings?name=a.wav", b"RIFF", headers)
    assert (answer.status, answer.error) == (408, "nothing came for 1 s: try again")
    answer = client.ask("POST", "/api/jobs", b"{", headers)
    assert (answer.status, answer.error) == (408, "the request did not arrive: try again")
    assert list(client.folder.iterdir()) == before


def test_a_small_file_that_decodes_to_too_much_is_refused(client):
    file = io.BytesIO()
    with av.open(file, "w", format="flac") as container:
        stream = container.add_stream("flac", rate=48_000, layout="stereo", format="s16")
        for _ in range(200):  # a minute of zeros is a few kilobytes
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 2 * 14_400), "i2"), "s16", "stereo")
            frame.sample_rate = 48_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    assert len(file.getvalue()) < 100_000
    answer = client.ask("POST", "/api/recordings?name=a.flac", file.getvalue())
    assert (answer.status, answer.error) == (
        422,
        "a.flac is too long: this page takes up to 0.2 minutes",
    )


@pytest.mark.parametrize("separates", [False, pytest.param(True, marks=pytest.mark.long)])
def test_twenty_at_once_are_all_answered_and_one_is_worked_on(client, street, separates):
    running, most, work = [], [], client.queue._work

    def counted(job):
        running.append(job)
        most.append(len(running))
        if separates:
            work(job)
        running.remove(job)

    def visit(number: int) -> str:
        recording = client.upload(street, f"{number}.wav")["id"]
        return client.finish(client.start(recording, prompts=DOG)["id"])["state"]

    client.queue._work = counted
    try:
        with concurrent.futures.ThreadPoolExecutor(20) as pool:
            assert list(pool.map(visit, range(20))) == ["done"] * 20
    finally:
        client.queue._work = work
    assert most == [1] * 20


def test_places_in_the_queue_and_cancellation(model, street):
    with http.running(model, Limits(max_mb=1.0, waiting=3)) as client:
        held = http.Held(client)
        recording = client.upload(street)["id"]
        jobs = [client.start(recording, prompts=DOG)]
        assert held.entered.wait(60)
        jobs += [client.start(recording, prompts=DOG) for _ in range(3)]
        answer = client.ask("POST", "/api/jobs", {"recording": recording, "prompts": DOG})
        assert (answer.status, answer.error) == (
            503,
            "3 separations wait already: try again in a while",
        )
        keys = [job["id"] for job in jobs]
        facts = [client.ask("GET", f"/api/jobs/{key}").json for key in keys]
        assert [(one["state"], one["ahead"]) for one in facts] == [
            ("running", 0),
            ("waiting", 1),
            ("waiting", 2),
            ("waiting", 3),
        ]
        for number in (0, 2):
            assert client.ask("DELETE", f"/api/jobs/{keys[number]}").json["state"] == "cancelled"
        assert client.ask("GET", f"/api/jobs/{keys[3]}").json["ahead"] == 2
        held.let_go()
        states = [client.finish(key)["state"] for key in keys]
        assert states == ["cancelled", "done", "cancelled", "done"]
        assert client.ask("GET", f"/api/jobs/{keys[0]}/stems/0.wav").status == 404
