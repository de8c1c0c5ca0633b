"""The site: `bash docs/build.sh` writes it into `site/` and ends with an error for a dead link.

The source folder is the repository, so that README, chapters, examples and notebooks are pages as
they stand, and their links, written for the code host, are the site's. Nothing is fetched, neither
by the build nor by a reader's browser.
"""

import ast
import dataclasses
import inspect
import io
import json
import re
import textwrap
import tokenize
from typing import Any

from flax import nnx
from sphinx.application import Sphinx
from sphinx.util.inspect import signature, stringify_signature

project = "sam_audio_jax"
copyright = "the authors of sam_audio_jax, Apache-2.0"
extensions = ["myst_parser", "sphinx.ext.autodoc"]
source_suffix = {".md": "markdown", ".ipynb": "markdown"}
root_doc = "README"
NAVIGATION = {  # caption -> pages, by their files
    "Use": [
        *("docs/inference", "docs/export", "docs/demo", "examples/README"),
        "sam_audio_jax/pretrained/tiny/README",
    ],
    "Notebooks": ["notebooks/separate", "notebooks/train", "notebooks/plan"],
    "Networks": ["docs/model", "docs/codec", "docs/prompt_encoders", "docs/numerics"],
    "Training": ["docs/training", "docs/finetuning", "docs/data", "docs/pods", "docs/scaling"],
    "Evaluation": [
        *("docs/scoring", "docs/benchmark"),
        "sam_audio_jax/pretrained/judge-tiny/README",
    ],
    "API": [
        *("docs/api/separate", "docs/api/networks", "docs/api/training"),
        *("docs/api/evaluation", "docs/api/plan"),
    ],
    "Project": ["CONTRIBUTING", "CHANGELOG", "sam_audio_jax/data/embedded/LICENSES"],
}
# A chapter that the navigation lacks is an error of the strict build.
include_patterns = ["README.*", "docs/**", *(f"{p}.*" for ps in NAVIGATION.values() for p in ps)]
exclude_patterns = [".*", "build", "dist", "out", "runs", "site", "tests"]  # not searched for pages

html_theme = "furo"  # system fonts, no file from elsewhere
html_title = project
html_copy_source = False
html_extra_path = ["redirect"]  # index.html, which leads to the README
pygments_style, pygments_dark_style = "friendly", "monokai"
highlight_language = "text"

myst_heading_anchors = 3  # `page.md#heading`, as the code host makes them
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

CODE = re.compile(r"(?<!`)`([^`]+)`(?!`)")
CHAPTER = re.compile(r"(?<![\w/`])docs/(\w+)\.md\b")
LONGEST_DEFAULT = 60  # characters of a field's default that are shown


def read_source(app: Sphinx, name: str, source: list[str]) -> None:
    """Makes pages of notebooks, and adds the navigation to the first page."""
    if name.startswith("notebooks/"):
        source[0] = page_of_notebook(json.loads(source[0]), name)
    if name == root_doc:
        for caption, pages in NAVIGATION.items():
            lines = "\n".join(f"/{page}" for page in pages)
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def page_of_notebook(notebook: dict[str, Any], name: str) -> str:
    """The text of a notebook, with its code as blocks; it is stored without outputs."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    title, *others = parts
    return "\n\n".join([title, f"{{download}}`Notebook </{name}.ipynb>`", *others])


def read_docstring(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Brings a docstring from Markdown into reStructuredText, and adds a dataclass's fields."""
    text = CODE.sub(r"``\1``\\ ", "\n".join(lines))
    lines[:] = CHAPTER.sub(r":doc:`docs/\1.md </docs/\1>`", text).splitlines()
    if is_dataclass(thing):
        lines += ["", *fields_of(thing)]


def read_signature(
    app: Sphinx,
    what: str,
    name: str,
    thing: Any,
    options: Any,
    shown: str | None,
    returned: str | None,
) -> tuple[str, str | None] | None:
    """Leaves out the signature of a dataclass, whose fields are listed, and shortens JAX's array.

    That of a network is its `__init__`'s, and not that of `nnx.Module`'s metaclass.
    """
    if is_dataclass(thing):
        return "", None
    if inspect.isclass(thing) and issubclass(thing, nnx.Module):
        own = signature(thing.__init__, bound_method=True)
        shown = stringify_signature(own, show_return_annotation=False, unqualified_typehints=True)
    if shown is None:  # a property, or a class without arguments
        return None
    array = "jaxlib._jax.Array"
    return shown.replace(array, "Array"), returned and returned.replace(array, "Array")


def is_dataclass(thing: Any) -> bool:
    return inspect.isclass(thing) and dataclasses.is_dataclass(thing)


def fields_of(cls: type) -> list[str]:
    """The fields of a dataclass, one item each: type, default, and the comments of its source."""
    source = textwrap.dedent(inspect.getsource(cls))
    beside, alone = comments_of(source)
    (tree,) = ast.parse(source).body
    assert isinstance(tree, ast.ClassDef)
    items = []
    for node in tree.body:
        if not isinstance(node, ast.AnnAssign):
            continue
        notes = [beside[n] for n in range(node.lineno, (node.end_lineno or 0) + 1) if n in beside]
        line = node.lineno - 1
        while line in alone:
            notes.insert(0, alone[line])
            line -= 1
        shown = f"{ast.unparse(node.target)}: {ast.unparse(node.annotation)}"
        default = ast.unparse(node.value) if node.value else ""
        if 0 < len(default) <= LONGEST_DEFAULT:
            shown += f" = {default}"
        note = CODE.sub(r"``\1``\\ ", " ".join(notes))
        items.append(f"* ``{shown}``" + (f": {note}" if note else ""))
    return items


def comments_of(source: str) -> tuple[dict[int, str], dict[int, str]]:
    """The comments by their lines: those beside code, and those that have a line of their own."""
    beside, alone = {}, {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            where = beside if token.line[: token.start[1]].strip() else alone
            where[token.start[0]] = token.string.lstrip("# ")
    return beside, alone


def setup(app: Sphinx) -> None:
    app.connect("source-read", read_source)
    app.connect("autodoc-process-docstring", read_docstring)
    app.connect("autodoc-process-signature", read_signature)
