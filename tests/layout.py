"""What can be read off the tree without running it: imports, rooms, packages, names.

Each check takes the root of a checkout and returns what is wrong there, one line each, so that a
test can also ask it about a tree with a planted fault. What a file holds is kept by its text: such
trees differ from the real one in a file or two.
"""

import ast
import collections
import functools
import graphlib
import importlib.metadata
import pathlib
import re
import sys
import tomllib
from collections.abc import Iterator, Mapping, Set

PACKAGE = "sam_audio_jax"
BESIDE = ("launch", "configs", "tools")  # folders of scripts beside the package

# Files that may share a name, because the folder says which of two like things they are.
TWIN_FILES: Mapping[str, str] = {
    **dict.fromkeys(
        (
            *("aesthetics", "audio_tower", "clap", "cnn14", "codec", "imagebind"),
            *("judge", "peav", "separator", "t5", "vision"),
        ),
        "convert/NAME.py is the table between the reference's names and ours of the network NAME",
    ),
    **dict.fromkeys(("separate", "bench"), "cli/NAME.py is the command of that name"),
    "config": "the dataclasses of a room; at the top, how every config is read",
}
# Classes that may share a name: the same role in different networks.
TWIN_CLASSES: Mapping[str, str] = {
    "Block": "one layer of a transformer's stack, in the file of that transformer",
    "ConvBlock": "the reference's name, in two networks",
}
# Words of an earlier, private vocabulary that have no plain sense here, in code and prose.
PRIVATE_WORDS = ("heard", "hears", "told", "tells", "born", "doors?", "sight", "askable", "lasting")
# Words that prose may use, but that name nothing: the thing has a word of the field.
PRIVATE_NAMES = frozenset(
    (
        *("said", "asked", "given", "made", "taken", "brought", "placed"),
        *("turn", "turns", "pace", "lap", "trust"),
    )
)


def modules(root: pathlib.Path) -> dict[str, pathlib.Path]:
    """Importable name -> file, for the package and the scripts beside it."""
    found = {}
    for folder in (PACKAGE, *BESIDE):
        for path in sorted((root / folder).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join(parts)] = path
    return found


@functools.cache
def _imported(text: str) -> tuple[tuple[str, ...], ...]:
    """Names of each import: a module, and for `from` also each name below it."""
    found: list[tuple[str, ...]] = []
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            found += [(alias.name,) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found += [(node.module, f"{node.module}.{alias.name}") for alias in node.names]
    return tuple(found)


def file_graph(root: pathlib.Path) -> dict[str, set[str]]:
    """Module -> modules of the tree that it imports."""
    known = modules(root)
    siblings = {name.split(".")[1]: name for name in known if name.startswith("configs.")}
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        graph[name] = set()
        for names in _imported(path.read_text()):
            named = [one for one in names if one in known]
            if named:
                graph[name].add(named[-1])
            elif name.startswith("configs.") and names[0] in siblings:
                graph[name].add(siblings[names[0]])
    return graph


def room(module: str) -> str:
    """The first folder or file below the package; a folder of scripts is a room as a whole."""
    first, *rest = module.split(".")
    return rest[0] if first == PACKAGE and rest else first


def circles(graph: Mapping[str, Set[str]]) -> list[str]:
    """A circle of imports, if there is one."""
    try:
        tuple(graphlib.TopologicalSorter(graph).static_order())
    except graphlib.CycleError as error:
        return [f"circle of imports: {' <- '.join(error.args[1])}"]
    return []


def rooms_in_order(root: pathlib.Path) -> list[str]:
    """The map of the rooms in CONTRIBUTING.md: first cells of its table, in order of imports."""
    text = (root / "CONTRIBUTING.md").read_text()
    table = text.split("## Map of the rooms")[1].split("\n## ")[0]
    return re.findall(r"^\| `([a-z_/.]+?)(?:\.py|/)?` \|", table, re.MULTILINE)


def upward_imports(root: pathlib.Path) -> list[str]:
    """Imports of a room that the map shows below; rooms that the map lacks or invents."""
    graph, order = file_graph(root), rooms_in_order(root)
    there = {room(module) for module in graph} - {PACKAGE}
    wrong = [f"CONTRIBUTING.md has no room {name}" for name in sorted(there - set(order))]
    wrong += [f"CONTRIBUTING.md has a room {name} too many" for name in set(order) - there]
    if wrong:
        return wrong
    rank = {name: number for number, name in enumerate(order)} | {PACKAGE: -1}
    for module, imported in graph.items():
        if room(module) == PACKAGE:  # the package's face names what users need
            continue
        wrong += [
            f"{module} imports {other}, which is below it"
            for other in sorted(imported)
            if rank[room(other)] > rank[room(module)]
        ]
    return wrong


def undeclared_packages(root: pathlib.Path) -> list[str]:
    """Third-party imports that pyproject.toml does not declare, and declared ones never used."""
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    always = {_distribution(line) for line in project["dependencies"]}
    extras = project.get("optional-dependencies", {})
    optional = {_distribution(line) for lines in extras.values() for line in lines}
    providers = importlib.metadata.packages_distributions()
    used, wrong = set(), []
    for module, path in modules(root).items():
        for first in sorted({names[0].split(".")[0] for names in _imported(path.read_text())}):
            local = (root / path.parent / f"{first}.py").exists() or first in (PACKAGE, *BESIDE)
            if first in sys.stdlib_module_names or local:
                continue
            by = {_distribution(name) for name in providers.get(first, [first])}
            used |= by
            if not by & (always | optional):
                wrong.append(f"{module} imports {first}, which pyproject.toml does not declare")
    idle = always - used
    return wrong + [f"pyproject.toml declares {name}, which nothing imports" for name in idle]


def _distribution(requirement: str) -> str:
    return re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")


def twin_files(root: pathlib.Path) -> list[str]:
    """Files of the package that share a name, except for the allowed ones."""
    by_name = collections.defaultdict(list)
    for module, path in modules(root).items():
        if module.startswith(PACKAGE) and path.stem != "__init__":
            by_name[path.stem].append(str(path.relative_to(root)))
    return [
        f"twin files: {', '.join(paths)}"
        for name, paths in by_name.items()
        if len(paths) > 1 and name not in TWIN_FILES
    ]


def twin_classes(root: pathlib.Path) -> list[str]:
    """Classes and public types of the package that share a name, except for the allowed ones."""
    by_name = collections.defaultdict(list)
    for module, path in modules(root).items():
        if not module.startswith(PACKAGE):
            continue
        for name in _types(path.read_text()):
            by_name[name].append(module)
    return [
        f"twin classes: {name} in {', '.join(places)}"
        for name, places in by_name.items()
        if len(places) > 1 and name not in TWIN_CLASSES
    ]


@functools.cache
def _types(text: str) -> tuple[str, ...]:
    """Public classes, and types by another name."""
    found = []
    for node in ast.parse(text).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            found.append(node.name)
        for name in node.targets if isinstance(node, ast.Assign) else []:
            if isinstance(name, ast.Name) and re.fullmatch(r"[A-Z][a-z]\w+", name.id):
                found.append(name.id)
    return tuple(found)


def private_words(root: pathlib.Path) -> list[str]:
    """Words for which the field has one (CONTRIBUTING.md, "Vocabulary"), in code and prose."""
    pages = [*sorted(root.glob("*.md")), *sorted(root.glob("docs/*.md"))]
    return [
        f"{path.relative_to(root)}:{line}: {word}"
        for path in (*modules(root).values(), *_tests(root), *pages)
        if path.name != "CONTRIBUTING.md"
        for word, line in _private_words(path.read_text())
    ]


@functools.cache
def _private_words(text: str) -> tuple[tuple[str, int], ...]:
    word = re.compile(rf"\b_?({'|'.join(PRIVATE_WORDS)})(?:_|\b)", re.IGNORECASE)
    return tuple(
        (match[1], 1 + text.count("\n", 0, match.start())) for match in word.finditer(text)
    )


def private_names(root: pathlib.Path) -> list[str]:
    """Variables, arguments, attributes, functions and classes that have a word of `PRIVATE_NAMES`.

    The names of tests are sentences, which may use them.
    """
    return [
        f"{path.relative_to(root)}:{line}: {name}"
        for path in (*modules(root).values(), *_tests(root))
        for name, line in _private_names(path.read_text())
    ]


@functools.cache
def _private_names(text: str) -> tuple[tuple[str, int], ...]:
    return tuple(
        (name, line)
        for name, line in _names(text)
        if PRIVATE_NAMES & set(name.lower().split("_")) and not name.startswith("test_")
    )


def _names(text: str) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Name):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name, node.lineno


def _tests(root: pathlib.Path) -> list[pathlib.Path]:
    """The files of tests, without the two that list the words."""
    own = {pathlib.Path(__file__).name, "test_layout.py"}
    return [path for path in sorted((root / "tests").rglob("*.py")) if path.name not in own]
