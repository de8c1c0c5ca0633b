"""The options by which commands are spread over devices and processes."""

import argparse

import pytest

from sam_audio_jax.cli import command
from sam_audio_jax.errors import UserError
from sam_audio_jax.parallel import MeshConfig
from sam_audio_jax.process_rank import ProcessRank


def parse(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    command.add_mesh_options(parser)
    command.add_process_options(parser)
    return parser.parse_args(argv)


@pytest.mark.parametrize(
    ("argv", "wanted"),
    [
        ([], None),
        (["--mesh.fsdp", "4"], MeshConfig(data=-1, fsdp=4)),
        (["--mesh.fsdp", "-1"], MeshConfig(data=1, fsdp=-1)),
        (["--mesh.data", "2", "--mesh.tensor", "4"], MeshConfig(data=2, fsdp=1, tensor=4)),
    ],
)
def test_axes_that_are_not_named_are_one_and_copies_take_the_rest(argv, wanted, monkeypatch):
    seen = []
    monkeypatch.setattr(command, "inference_mesh", lambda config, size: seen.append(config))
    command.mesh_of(parse(*argv), lambda: 0)
    assert seen == [wanted]


def test_one_device_needs_no_mesh_and_a_wrong_one_is_the_users_error():
    assert command.mesh_of(parse(), lambda: 0) is None
    with pytest.raises(UserError, match=r"mesh data=3 .* does not fit 1 devices"):
        command.mesh_of(parse("--mesh.data", "3"), lambda: 0)


def test_the_rank_is_given_whole_or_by_the_environment(monkeypatch):
    assert command.process_rank(parse("--process", "1", "--processes", "3")) == ProcessRank(1, 3)
    with pytest.raises(UserError, match="go together"):
        command.process_rank(parse("--process", "1"))
