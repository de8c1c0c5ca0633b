"""Draws a study again from its table, without its runs: `python -m tools.draw_study DIR`.

Reads DIR/study.json and DIR/table.json, as `sam-audio scaling` writes them, and writes
DIR/results.json and DIR/report.html anew. The study of this repository is in docs/scaling_study.
"""

import pathlib
import sys

from sam_audio_jax import config
from sam_audio_jax.cli.command import command
from sam_audio_jax.errors import UserError
from sam_audio_jax.files import read_json, read_object
from sam_audio_jax.scaling import study_page
from sam_audio_jax.scaling.measured import MeasuredLoss, StudyFolder
from sam_audio_jax.scaling.study import StudyConfig


def read_study(folder: StudyFolder) -> tuple[StudyConfig, list[MeasuredLoss]]:
    """The config of a study and the rows of its table. Raises `UserError` for other files."""
    study = config.from_dict(StudyConfig, read_object(folder.config_file))
    rows = read_json(folder.table_file)
    try:
        return study, [MeasuredLoss(**row) for row in rows]
    except TypeError as error:
        raise UserError(f"{folder.table_file} is no table of a study: {error}") from error


@command
def main(argv: list[str]) -> None:
    """Writes results and page, and prints what they say."""
    parser = config.ArgumentParser(__doc__, command="draw_study")
    parser.add_argument("folder", type=pathlib.Path, metavar="DIR", help="of the study")
    folder = StudyFolder(parser.parse_args(argv).folder)
    results = study_page.write_results(folder, *read_study(folder))
    for line in study_page.summary_lines(results):
        print(line)
    print(f"report: {folder.report_file}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
