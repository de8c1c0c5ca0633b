"""The command `demo`: a real process that serves, and leaves nothing behind when it ends."""

import re
import signal
import socket
import subprocess
import sys

import pytest

from sam_audio_jax.cli import demo as command
from tests.children import ROOT, environment
from tests.demo.http import Client


@pytest.mark.processes
@pytest.mark.parametrize("busy", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_process_serves_and_removes_its_folder_when_it_is_ended(tmp_path, street, busy):
    process = subprocess.Popen(
        [sys.executable, "launch/demo.py", "--port", "0"],
        cwd=ROOT,
        env=environment(TMPDIR=str(tmp_path)),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        lines = [process.stderr.readline() for _ in range(2)]
        found = re.search(r"the page is at http://127\.0\.0\.1:(\d+) ", lines[-1])
        assert found, lines
        (folder,) = [path for path in tmp_path.iterdir() if path.name.startswith("sam-audio-demo")]
        client = Client(int(found[1]), None, folder)
        assert client.ask("GET", "/api/model").json["name"] == "tiny"
        recording = client.upload(street)["id"]
        assert (folder / recording / "mixture.wav").is_file()
        if busy:
            client.start(recording, prompts=[{"text": "dog"}])
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    finally:
        process.kill()
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--max-mb", "0"], "demo.max_mb=0.0 must be a finite number above 0 and up to 4000"),
        (["--max-minutes", "nan"], "demo.max_minutes=nan must be a finite number above 0"),
        (["--port", "-1"], "-1 must be 0 or more"),
        (["--port", "70000"], "cannot listen on 127.0.0.1 port 70000"),
        (["--host", "nowhere.invalid", "--port", "0"], "cannot listen on nowhere.invalid port 0"),
        (["nothing", "--port", "0"], "no checkpoint 'nothing'; shipped: tiny"),
    ],
)
def test_wrong_options_are_one_line(arguments, message, capsys):
    assert command.main(arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert message in lines[-1]
    assert lines[-1].startswith("error: ")


def test_a_port_in_use_is_one_line(capsys):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        assert command.main(["--port", str(port)]) == 2
    assert capsys.readouterr().err == (
        f"error: cannot listen on 127.0.0.1 port {port}: Address already in use\n"
    )
