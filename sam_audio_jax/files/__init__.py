"""Files and folders that appear whole or not at all, JSON, JSON lines, places to write to."""

from sam_audio_jax.files.json_files import (
    append_jsonl,
    check_format,
    iter_jsonl,
    iter_lines,
    json_differences,
    read_json,
    read_jsonl,
    read_jsonl_from,
    read_lines,
    read_object,
    write_json,
    write_jsonl,
)
from sam_audio_jax.files.locks import locked, writing_to
from sam_audio_jax.files.places import (
    check_file_name,
    check_writable,
    disk_is_full,
    place_error,
)
from sam_audio_jax.files.whole import (
    PART,
    STALE_S,
    check_new_folder,
    name_writer,
    remove_parts,
    remove_parts_of,
    sha256_of,
    whole_file,
    whole_folder,
)

__all__ = [
    "PART",
    "STALE_S",
    "append_jsonl",
    "check_file_name",
    "check_format",
    "check_new_folder",
    "check_writable",
    "disk_is_full",
    "iter_jsonl",
    "iter_lines",
    "json_differences",
    "locked",
    "name_writer",
    "place_error",
    "read_json",
    "read_jsonl",
    "read_jsonl_from",
    "read_lines",
    "read_object",
    "remove_parts",
    "remove_parts_of",
    "sha256_of",
    "whole_file",
    "whole_folder",
    "write_json",
    "write_jsonl",
    "writing_to",
]
