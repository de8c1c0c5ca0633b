"""What code and chapters cite exists: chapters, headings, linked files, commands."""

import pathlib
import re

import pytest

from sam_audio_jax.cli import COMMANDS

ROOT = pathlib.Path(__file__).parent.parent
SUFFIXES = (".py", ".md", ".sh")
SKIPPED = {".venv", ".git", "build", "dist"}
CITED = re.compile(r'(docs/\w+\.md)`?(?:,\s*(?:#\s*)?"([^"]+)"(?:\s+and\s+"([^"]+)")?)?')
UNSHIPPED = re.compile(r"\bspec/\w|\bDESIGN\.md")
LINK = re.compile(r"\]\(([^)#:]+)(?:#[^)]*)?\)")  # relative ones: a URL has a colon


def texts(root: pathlib.Path):
    """Yields the path, relative to `root`, and the text of every file that may cite."""
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.suffix in SUFFIXES and not SKIPPED & set(parts):
            yield path.relative_to(root), path.read_text()


def headings(path: pathlib.Path) -> set[str]:
    """The headings of one chapter."""
    return set(re.findall(r"^#+ (.+)$", path.read_text(), re.MULTILINE))


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
        if path.suffix == ".md" and (len(path.parts) == 1 or path.parts[0] == "docs"):
            for link in LINK.findall(text):
                if not (root / path.parent / link).exists():
                    problems.append(f"{path}: no {link}")
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


def test_dead_link_is_reported(tmp_path):
    (tmp_path / "README.md").write_text("[here](absent.md) and [there](https://arxiv.org)")
    assert dead(tmp_path) == ["README.md: no absent.md"]


def test_commands_of_the_readme_exist():
    text = (ROOT / "README.md").read_text()
    named = set(re.findall(r"`?sam-audio ([a-z][a-z-]*)", text))
    assert named <= set(COMMANDS), named - set(COMMANDS)
    for script in re.findall(r"\b(?:launch|tests)/[\w/]+\.(?:py|sh)", text):
        assert (ROOT / script).is_file(), script
