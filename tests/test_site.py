"""The site: a strict build, and that it needs nothing from elsewhere."""

import html
import pathlib
import re
import runpy

import pytest

pytest.importorskip("sphinx", reason="the extra [docs] is not installed")
pytest.importorskip("myst_parser", reason="the extra [docs] is not installed")
pytest.importorskip("furo", reason="the extra [docs] is not installed")

from sphinx.cmd.build import build_main

ROOT = pathlib.Path(__file__).parent.parent
LINK = re.compile(r"\]\(([^)#\s]+\.md)(?:#[^)]*)?\)")
LOADED = re.compile(  # what a browser fetches when it opens a page
    r"""<(?:script|img|iframe|audio|video|source)\b[^>]*\bsrc=["'](?:https?:)?//[^"']+"""
    r"""|<link\b(?=[^>]*stylesheet)[^>]*\bhref=["'](?:https?:)?//[^"']+"""
    r"""|@import[^;]*//[^;]+|url\(["']?(?:https?:)?//[^)]+"""
)


def build(source: pathlib.Path, out: pathlib.Path) -> tuple[int, str]:
    """Builds strictly; returns the exit status and the warnings."""
    warnings = out.with_suffix(".txt")
    quiet = ["--quiet", "--fail-on-warning", "--keep-going", "--warning-file", str(warnings)]
    status = build_main([*quiet, "--conf-dir", str(ROOT / "docs"), str(source), str(out)])
    return status, warnings.read_text()


def test_pages_link_to_pages_of_the_site():
    navigation = runpy.run_path(str(ROOT / "docs" / "conf.py"))["NAVIGATION"]
    pages = {"README", *(page for pages in navigation.values() for page in pages)}
    files = [path for page in pages if (path := ROOT / f"{page}.md").is_file()]
    linked = {
        (path.parent / target).resolve().relative_to(ROOT).with_suffix("").as_posix()
        for path in files
        for target in LINK.findall(path.read_text(encoding="utf-8"))
        if "://" not in target
    }
    assert len(linked) > 10
    assert linked <= pages


@pytest.mark.long
def test_the_strict_build_passes_and_pages_load_nothing_from_elsewhere(tmp_path):
    status, warnings = build(ROOT, tmp_path / "site")
    assert (status, warnings) == (0, "")
    site = tmp_path / "site"
    assert 'url=README.html"' in (site / "index.html").read_text()
    reference = (site / "docs" / "api" / "separate.html").read_text()
    assert 'id="sam_audio_jax.SAMAudio.separate"' in reference
    shown = html.unescape(re.sub(r"<[^>]+>", "", reference))
    assert "target: Float[np.ndarray, '*channels samples']" in shown
    networks = (site / "docs" / "api" / "networks.html").read_text()
    shown = " ".join(html.unescape(re.sub(r"<[^>]+>", "", networks)).split())
    assert "Codec( config: CodecConfig, *, rngs: Rngs, )" in shown
    assert "latents: Float[Array, 'batch frames channels']," in shown
    assert ">docs/inference.md</" in reference  # a chapter that a docstring names is a link
    for file in [*site.rglob("*.html"), *site.rglob("*.css")]:
        assert not LOADED.findall(file.read_text()), file


def test_dead_links_end_the_strict_build(tmp_path):
    source = tmp_path / "source"
    (source / "docs").mkdir(parents=True)
    dead = ["docs/none.html", "docs/model.md#absent", "#absent"]
    links = " ".join(f"[link]({link})" for link in [*dead, "docs/model.md#model", "LICENSE"])
    (source / "README.md").write_text(f"# First\n\n{links}\n")
    (source / "docs" / "model.md").write_text("# Model\n")
    (source / "LICENSE").write_text("Apache-2.0")
    status, warnings = build(source, tmp_path / "site")
    assert status
    found = re.findall(r"README.md:3: WARNING: .*?'(.*?)' \[myst.xref_missing\]", warnings)
    assert len(found) == len(dead), warnings


def test_what_a_page_would_load_is_found():
    assert LOADED.search('<script async="" src="https://cdn.example/x.js"></script>')
    assert LOADED.search('<link rel="stylesheet" href="//fonts.example/css">')
    assert LOADED.search("@font-face { src: url(https://fonts.example/a.woff2) }")
    assert not LOADED.search('<a href="https://arxiv.org"><img src="_images/a.png"></a>')
