"""The documentation does what it says: tutorials run, commands exist, code compiles, links lead somewhere."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
from jackd import JackServer, require_audio
from test_files import posix

import rtsep.cli
from rtsep.cli import make_parser

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)(?: +(\S+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
names = {page: str(page.relative_to(ROOT)) for page in PAGES}


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Language, what stands behind it, and text of the fenced blocks of a page."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run_tutorial(page: Path, folder: Path, kinds: tuple[str, ...]) -> str:
    """Do what a tutorial says, in an empty folder, with shells and Pythons of its own; what it prints."""
    tools = folder / ".tools"
    tools.mkdir()
    for name, words in (("rtsep", "-m rtsep"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} {words} "$@"\n')
        (tools / name).chmod(0o755)
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}"}
    environment["PYTHONPATH"] += f"{os.pathsep}{folder}"
    said = ""
    for language, more, text in blocks(page):
        if language == "python" and more:
            (folder / more).write_text(text)
        elif more in kinds:
            command = ["sh", "-e"] if language == "sh" else [sys.executable, "-"]
            run = subprocess.run(
                command, input=text, cwd=folder, env=environment, capture_output=True, text=True, timeout=200
            )
            assert run.returncode == 0, f"{text}\n{run.stdout}{run.stderr}"
            said += run.stdout
    return said


@posix
def test_the_tutorial_on_a_folder_cleans_it(tmp_path):
    said = run_tutorial(ROOT / "docs/tutorials/clean_a_folder.md", tmp_path, ("",))
    assert "noisy_speech.speech.wav\n" in said
    assert {path.name for path in (tmp_path / "cleaned").iterdir()} >= {"noisy_speech.residual.wav", "noisy_speech.png"}
    assert said.rstrip().endswith("again/noisy_speech.speech.wav")


@posix
def test_the_tutorial_on_an_estimator_runs_it_in_files_and_in_python(tmp_path):
    said = run_tutorial(ROOT / "docs/tutorials/an_estimator_of_your_own.md", tmp_path, ("",))
    assert "noisy_speech" not in said
    assert (tmp_path / "parts" / "talk.events.wav").exists()
    assert "('events', 'steady') after 128 samples" in said


@posix
def test_the_tutorial_on_8_ms_is_late_by_8_ms(tmp_path):
    said = run_tutorial(ROOT / "docs/tutorials/live_with_8_ms.md", tmp_path, ("",))
    assert "128 samples are 8.0 ms" in said
    assert (tmp_path / "eight.wav").exists()


@pytest.fixture(scope="module")
def server():
    require_audio()
    with JackServer(48_000, 256) as jack_server:
        yield jack_server


@posix
def test_the_live_part_of_the_tutorial_runs_on_a_sound_server(server, tmp_path):
    said = run_tutorial(ROOT / "docs/tutorials/live_with_8_ms.md", tmp_path, ("live",))
    assert "`rtsep live` can run" in said
    assert re.search(r"\b384 samples +8.0 ms", said)


def test_every_tutorial_has_a_test_of_its_own():
    assert [page.name for page in TUTORIALS] == [
        "an_estimator_of_your_own.md",
        "clean_a_folder.md",
        "live_with_8_ms.md",
    ]


def commands(page: Path) -> list[str]:
    """The lines of a page that begin with `rtsep`, in blocks of commands."""
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    return [line.strip() for line in re.findall(r"^(?: {4}|\$ |)(rtsep [a-z].*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("page", PAGES, ids=names.get)
def test_commands_in_pages_are_taken_as_they_stand(page):
    parser = make_parser()
    for line in commands(page):
        words = shlex.split(line, comments=True)
        while "|" in words:
            words = words[: words.index("|")]
        for sign in (">", "&&", "2>"):
            words = words[: words.index(sign)] if sign in words else words
        if "--help" not in words:
            try:
                parser.parse_args(words[1:])
            except rtsep.cli.Misused as problem:
                pytest.fail(f"{line}: {problem}")


@pytest.mark.parametrize("page", PAGES, ids=names.get)
def test_python_in_pages_compiles_and_what_it_imports_from_here_is_there(page):
    for language, _, text in blocks(page):
        if language == "python":
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "rtsep":
                    try:
                        module = import_module(node.module)
                    except rtsep.ConfigError as problem:
                        if "pip install" not in str(problem):
                            raise
                        pytest.skip(str(problem))
                    for alias in node.names:
                        assert hasattr(module, alias.name), f"{node.module}.{alias.name}"


@pytest.mark.parametrize("page", PAGES, ids=names.get)
def test_links_within_the_repository_lead_somewhere(page):
    for link in re.findall(r"\]\(\s*([^)\s#:]+)(?:#[^)\s]*)?\)", page.read_text(encoding="utf-8")):
        generated = page.parent == ROOT / "docs" and link.startswith("reference/")
        assert generated or (page.parent / link).exists(), link


def test_the_site_is_built_without_a_warning(tmp_path):
    if importlib.util.find_spec("mkdocs") is None or importlib.util.find_spec("mkdocstrings") is None:
        pytest.skip('needs pip install ".[docs]"')
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)
    assert run.returncode == 0, run.stdout + run.stderr
    text = (tmp_path / "site" / "reference" / "rtsep" / "index.html").read_text(encoding="utf-8")
    assert "rtsep.separator.Separator" in text
    assert "Sample rate in Hz, 8000 to 192000." in text
    first = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    for page in (ROOT / "docs").glob("*.md"):
        assert page.stem == "index" or f'href="{page.stem}/"' in first, page.name
    assert not re.search(r"""<(?:link|script|img)[^>]*(?:src|href)=["']?https?:""", first)
