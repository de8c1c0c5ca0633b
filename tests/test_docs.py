"""What code and chapters cite exists: chapters, headings, linked files and anchors, commands."""

import contextlib
import functools
import io
import json
import pathlib
import re
import shlex

import pytest

from sam_audio_jax.cli import COMMANDS, main

ROOT = pathlib.Path(__file__).parent.parent
SUFFIXES = (".py", ".md", ".sh", ".ipynb")
SKIPPED = {".venv", ".git", "build", "dist", "site", "runs"}
CITED = re.compile(r'(docs/\w+\.md)`?(?:,\s*(?:#\s*)?"([^"]+)"(?:\s+and\s+"([^"]+)")?)?')
UNSHIPPED = re.compile(r"\bspec/\w|\bDESIGN\.md")
LINK = re.compile(r"\]\(([^)#:\s]*)(?:#([^)\s]*))?\)")  # relative ones: a URL has a colon
BLOCK = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def texts(root: pathlib.Path):
    """Yields the path, relative to `root`, and the text of every file that may cite."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix in SUFFIXES and not SKIPPED & set(parts):
            yield path.relative_to(root), read(path)


def read(path: pathlib.Path) -> str:
    """The text of a file; a notebook's is that of its cells, with code in blocks."""
    if path.suffix != ".ipynb":
        return path.read_text()
    cells = [("".join(c["source"]), c["cell_type"]) for c in json.loads(path.read_text())["cells"]]
    return "\n\n".join(
        text if kind == "markdown" else f"```python\n{text}\n```" for text, kind in cells
    )


def headings(path: pathlib.Path) -> set[str]:
    """The headings of one chapter."""
    return set(re.findall(r"^#+ (.+)$", BLOCK.sub("", path.read_text()), re.MULTILINE))


def anchors(path: pathlib.Path) -> set[str]:
    """The anchors that code hosts, and the site, make of a page's headings."""
    plain = (re.sub(r"[^\w -]", "", name.lower()) for name in headings(path))
    return {name.strip().replace(" ", "-") for name in plain}


def dead_links(root: pathlib.Path, page: pathlib.Path, text: str) -> list[str]:
    """The relative links of a page that lead to no file, or to no heading of one."""
    dead = []
    for link, anchor in LINK.findall(BLOCK.sub("", text)):
        target = root / page.parent / link if link else root / page
        if not target.exists():
            dead.append(f"{page}: no {link}")
        elif anchor and (target.suffix != ".md" or anchor not in anchors(target)):
            dead.append(f"{page}: no #{anchor} in {target.relative_to(root)}")
    return dead


def dead(root: pathlib.Path) -> list[str]:
    """Returns one line for each citation or relative link under `root` that leads nowhere."""
    problems = []
    for path, text in texts(root):
        if path.name == pathlib.Path(__file__).name:
            continue
        problems += [f"{path}: cites {found}" for found in UNSHIPPED.findall(text)]
        for chapter, *names in CITED.findall(text):
            if not (root / chapter).is_file():
                problems.append(f"{path}: no {chapter}")
                continue
            known = headings(root / chapter)
            for name in filter(None, names):
                if " ".join(name.split()) not in known:
                    problems.append(f"{path}: no heading {name!r} in {chapter}")
        if path.suffix in (".md", ".ipynb"):
            problems += dead_links(root, path, text)
    return problems


def test_citations_and_links_lead_somewhere():
    assert not dead(ROOT), dead(ROOT)


@pytest.mark.parametrize(
    "line",
    [
        '"""See docs/model.md, "Nothing"."""',
        '"""See docs/model.md,\n    "Nothing"."""',
        '"""See docs/absent.md."""',
        '"""See spec/model.md, section 5."""',
        '"""See DESIGN.md."""',
    ],
)
def test_dead_citation_is_reported(tmp_path, line):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "model.md").write_text("# The separator\n\n## Block\n")
    (tmp_path / "code.py").write_text('"""See docs/model.md, "Block"."""\n')
    assert not dead(tmp_path)
    (tmp_path / "code.py").write_text(line)
    assert len(dead(tmp_path)) == 1


def test_dead_links_are_reported(tmp_path):
    page = "# One page: `a`\n[a](absent.md), [b](https://arxiv.org), [c](#one-page-a), [d](#two)\n"
    (tmp_path / "README.md").write_text(page)
    (tmp_path / "examples").mkdir()
    cells = [
        {"cell_type": "markdown", "source": ["[a](../README.md#one-page-a)\n", "[b](../x.md)"]}
    ]
    (tmp_path / "examples" / "n.ipynb").write_text(json.dumps({"cells": cells}))
    assert dead(tmp_path) == [
        "README.md: no absent.md",
        "README.md: no #two in README.md",
        "examples/n.ipynb: no ../x.md",
    ]


def commands(text: str) -> list[list[str]]:
    """Returns the words of each `sam-audio` command in the code blocks of a page."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("sam-audio ")]


def missing_scripts(root: pathlib.Path, text: str) -> list[str]:
    """Returns the scripts that a page names and `root` lacks."""
    named = re.findall(r"\b(?:launch|tests|tools)/[\w/]+\.(?:py|sh)\b", text)
    return [script for script in named if not (root / script).is_file()]


def missing_names(root: pathlib.Path, text: str) -> list[str]:
    """Returns the files and names of modules, in backticks, that a page cites and `root` lacks.

    Files may be written as seen from `root` or from the package; names are those that
    `room/file.Name` or `file.Name` define.
    """
    folders = (root, root / "sam_audio_jax")
    files = re.findall(r"`((?!sam_audio/)[\w/]+\.py)`", text)  # sam_audio/ is the reference's
    missing = [f for f in files if not any((folder / f).is_file() for folder in folders)]
    for module, name in re.findall(r"`([a-z_/]+)\.(?!py`|json`)([A-Za-z_]+)`", text):
        path = root / "sam_audio_jax" / f"{module}.py"
        defined = rf"^(?:class |def )?{name}\b"
        if path.is_file() and not re.search(defined, path.read_text(), re.MULTILINE):
            missing.append(f"{module}.{name}")
    return missing


@functools.cache
def help_of(*words: str) -> str:
    """Returns what `sam-audio WORDS --help` prints."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([*words, "--help"])
    return output.getvalue()


def unknown_flags(words: list[str]) -> list[str]:
    """Returns the command if it is unknown, else those of its flags that its help does not list."""
    name, *arguments = words
    if name not in COMMANDS:
        return [name]
    known = help_of(name)
    if "--FIELD" in known or "CONFIG" in known:  # it also takes the fields of a config as flags
        known += help_of("train", "tiny") + help_of("train-codec", "codec_tiny")
        known += help_of("train-judge", "judge_tiny")
    # A study's trainings have the fields of a training.
    flags = [word.replace("--base.", "--") for word in arguments if word.startswith("--")]
    return [flag for flag in flags if not re.search(rf"{re.escape(flag)}(?![\w.-])", known)]


def pages() -> list[pathlib.Path]:
    """The pages that a reader follows."""
    folders = ("docs", "examples", "notebooks")
    found = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.*"))]
    return [
        *(ROOT / "README.md", ROOT / "CONTRIBUTING.md"),
        *(path for path in found if path.suffix in (".md", ".ipynb")),
    ]


def test_commands_and_scripts_of_the_pages_exist():
    """The help of a command lists every flag that a page gives it."""
    for page in pages():
        text = read(page)
        assert not missing_scripts(ROOT, text), page.name
        assert not missing_names(ROOT, text), page.name
        named = set(re.findall(r"`sam-audio ([a-z][a-z-]*)", text))
        assert named <= set(COMMANDS), (page.name, named - set(COMMANDS))
        for words in commands(text):
            assert not unknown_flags(words), (page.name, words)


def test_unknown_command_flag_and_script_are_reported(tmp_path):
    page = (
        "```\nsam-audio evaluate --nothing 1 \\\n  --out DIR  # note\n```\npython launch/absent.py"
    )
    assert commands(page) == [["evaluate", "--nothing", "1", "--out", "DIR"]]
    assert unknown_flags(commands(page)[0]) == ["--nothing"]
    assert unknown_flags(["judge"]) == ["judge"]
    assert missing_scripts(tmp_path, page) == ["launch/absent.py"]


def test_missing_file_and_name_are_reported(tmp_path):
    (tmp_path / "sam_audio_jax").mkdir()
    (tmp_path / "sam_audio_jax" / "flow.py").write_text("class Sampler:\n    pass\n")
    page = "`flow.py`, `flow.Sampler`, `sam_audio/model.py`; `absent.py`, `flow.Absent`"
    assert missing_names(tmp_path, page) == ["absent.py", "flow.Absent"]
