"""What MkDocs is told beyond mkdocs.yml: which pages there are, in which order, and the reference.

Every page in this folder is in the navigation, known or not: a new one needs no entry. Pages from elsewhere in the
repository are taken along, links between them follow, and links to source code become plain words.
"""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path
from posixpath import dirname, normpath, relpath
from typing import Any

from mkdocs.structure.files import File

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TAKEN = {"CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md", "rtsep/data/README.md": "data.md"}
FIRST = ("index.md", "install.md")
TUTORIALS = ("clean_a_folder.md", "live_with_8_ms.md", "an_estimator_of_your_own.md")
GUIDES = ("choosing.md", "live.md", "evaluation.md", "extending.md", "training.md")
MODULES = (
    "rtsep",
    "rtsep.estimators",
    "rtsep.phase",
    "rtsep.live",
    "rtsep.evaluation",
    "rtsep.factorise",
    "rtsep.restoration",
)
LINK = re.compile(r"(?<!!)\[((?:\[[^\]]*\]|[^\[\]])*)\]\(\s*([^)\s#:]+)(#[^)\s]*)?\)")


def on_config(config: Any) -> Any:
    """Navigation: what is known in its order, everything else behind it."""
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    tutorials = [f"tutorials/{name}" for name in TUTORIALS if f"tutorials/{name}" in there]
    guides = [name for name in GUIDES if name in there]
    rest = sorted(there - {*FIRST, *tutorials, *guides})
    # A page beside a file of results, or with plots of its own, says what was measured.
    measured = [name for name in rest if any((DOCS / name).with_suffix(kind).exists() for kind in (".json", ".png"))]
    config.nav = [
        *(name for name in FIRST if name in there),
        {"Tutorials": tutorials + [name for name in rest if name.startswith("tutorials/")]},
        {"Guides": guides + [name for name in rest if name not in measured and "/" not in name]},
        {"Measured": measured},
        {"Reference": [{name: _page(name)} for name in MODULES]},
        {
            "Project": [
                {"Contributing": "contributing.md"},
                {"Changelog": "changelog.md"},
                {"Data and models": "data.md"},
            ]
        },
    ]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages from elsewhere, and one for each module of the reference."""
    for source, name in TAKEN.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, name, content=_linked(text, source)))
    for module in MODULES:
        files.append(File.generated(config, _page(module), content=_reference(module)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Links of the repository become links of the site."""
    taken = page.file.src_uri in {*TAKEN.values(), *map(_page, MODULES)}
    return markdown if taken else _linked(markdown, f"docs/{page.file.src_uri}")


def _page(module: str) -> str:
    return f"reference/{module}.md"


def _reference(module: str) -> str:
    """A page of all public names of a module, where they are defined."""
    package = import_module(module)
    lines = [f"# {module}", "", (package.__doc__ or "").strip(), ""]
    for name in sorted(package.__all__, key=str.lower):
        found = getattr(package, name)
        home = getattr(found, "__module__", None)
        if home and home.startswith("rtsep."):
            lines += [f"::: {home}.{found.__qualname__}", ""]
    return "\n".join(lines)


def _linked(markdown: str, source: str) -> str:
    """The text of a file of the repository, with links as the site has them."""
    here = "/".join(_place(source).split("/")[:-1])

    def change(found: re.Match[str]) -> str:
        text, link, anchor = found[1], found[2], found[3] or ""
        target = normpath(f"{dirname(source)}/{link}" if dirname(source) else link)
        if target.startswith("docs/") or target in TAKEN:
            return f"[{text}]({relpath(_place(target), here or '.')}{anchor})"
        if (ROOT / target).exists():
            return text if text.startswith("`") else f"`{text}`" if text == target else text
        return found[0]  # wrong, as MkDocs will say

    return LINK.sub(change, markdown)


def _place(source: str) -> str:
    """Where a file of the repository stands on the site."""
    return TAKEN.get(source) or source.removeprefix("docs/")
