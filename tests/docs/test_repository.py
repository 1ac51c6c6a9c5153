"""What the documents and the house rules say about the repository is so."""

from __future__ import annotations

import ast
import hashlib
import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("astrid", "api", "ray_jobs", "benchmarks", "tools", "tests")
SKIPPED_FOLDERS = {".git", ".venv", ".venv-lock", "build", "dist", "__pycache__", "node_modules"}
# Written in pieces, so that this file is not found by its own search.
FORBIDDEN = re.compile(
    "|".join(
        ("TO" + "DO", "FIX" + "ME", "XX" + "X", "NotImplemented" + "Error", "place" + "holder", "not " + "implemented")
    )
)
# Folders of every machine; the repository may lie in one, and may speak of them.
STANDARD_FOLDERS = {Path("/"), Path("/tmp"), Path("/root"), Path("/home"), Path("/opt"), Path("/srv"), Path("/var/tmp")}
PACKAGE_INDEX = re.compile(r"https?://[^\s\"']*/(?:simple|pypi|npm|packages)(?:/|\b)", re.IGNORECASE)
INDEX_OPTION = re.compile(r"--(?:extra-)?index-url|--find-links|--trusted-host")


@cache
def tracked_files() -> tuple[Path, ...]:
    """Return the files that belong to the repository: tracked, or new and not ignored."""
    git = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(git, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
        found = [ROOT / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):  # an unpacked archive, or no git
        found = [path for path in ROOT.rglob("*") if path.is_file()]
    return tuple(p for p in found if p.is_file() and not SKIPPED_FOLDERS & set(p.relative_to(ROOT).parts))


def texts() -> list[tuple[str, str]]:
    """Return (name, content) of all tracked text files."""
    result = []
    for path in tracked_files():
        try:
            result.append((str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")))
        except UnicodeDecodeError:  # compressed data
            continue
    return result


def modules() -> list[Path]:
    """Return the Python files of the packages."""
    found = [p for p in tracked_files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in PACKAGES]
    assert len(found) > 20, "the search for modules looks in the wrong place"
    return found


def makefile_targets() -> set[str]:
    """Return the targets that the Makefile defines."""
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("document", ["README.md", "CONTRIBUTING.md"])
def test_named_make_targets_exist(document: str) -> None:
    named = set(re.findall(r"\bmake ([a-z][a-z-]*)", _code_of((ROOT / document).read_text())))
    assert named, f"{document} names no command of the Makefile"
    assert named <= makefile_targets()


def _code_of(markdown: str) -> str:
    blocks = re.findall(r"```.*?```", markdown, re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", markdown, flags=re.DOTALL))
    return "\n".join([*blocks, *spans])


def test_every_target_is_documented() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    assert {t for t in makefile_targets() if f"`make {t}`" not in text} == {"help"}


def test_relative_links_lead_somewhere() -> None:
    broken = []
    for name, text in texts():
        if not name.endswith(".md"):
            continue
        for target in re.findall(r"\]\(([^)\s#]+)(?:#[^)]*)?\)", text):
            if (
                "://" not in target
                and not target.startswith("mailto:")
                and not (ROOT / name).parent.joinpath(target).exists()
            ):
                broken.append(f"{name}: {target}")
    assert broken == []


def test_no_address_of_a_package_index() -> None:
    own = {"tools/lock.sh", "tests/docs/test_repository.py"}  # they name the options in order to refuse them
    found = [
        f"{name}: {match.group(0)}"
        for name, text in texts()
        for pattern in (PACKAGE_INDEX, INDEX_OPTION)
        for match in pattern.finditer(text)
        if name not in own
    ]
    assert found == []


def test_no_path_of_the_machine_it_was_written_on() -> None:
    here = re.compile(rf"(?<![A-Za-z0-9_.]){re.escape(str(ROOT.parent))}/[a-z.]")
    if ROOT.parent in STANDARD_FOLDERS:
        pytest.skip(f"the repository lies in {ROOT.parent}, which a document may name")
    assert [name for name, text in texts() if here.search(text)] == []


@pytest.mark.parametrize("name", ["constraints.txt", "constraints-core.txt"])
def test_every_locked_version_has_hashes_and_no_address(name: str) -> None:
    text = (ROOT / name).read_text()
    assert not re.search(r"://|^\s*-(?!-hash)|file:", text, re.MULTILINE)
    entries = re.split(r"\n(?=\S)", text)
    locked = [entry for entry in entries if not entry.startswith("#")]
    assert len(locked) > 50
    assert [entry.split()[0] for entry in locked if not re.match(r"[a-z0-9-]+(\[[a-z,]+\])?==\S+", entry)] == []
    assert [entry.split()[0] for entry in locked if "--hash=sha256:" not in entry] == []


def test_the_core_lock_is_a_part_of_the_whole() -> None:
    whole = set(re.split(r"\n(?=\S)", (ROOT / "constraints.txt").read_text().strip()))
    core = set(re.split(r"\n(?=\S)", (ROOT / "constraints-core.txt").read_text().strip()))
    assert core < whole


def test_the_locks_hold_every_dependency() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    everything = [*project["dependencies"], *(d for group in project["optional-dependencies"].values() for d in group)]
    needed = {
        "constraints-core.txt": [*project["dependencies"], *project["optional-dependencies"]["build"]],
        "constraints.txt": everything,
    }
    for name, requirements in needed.items():
        locked = set(re.findall(r"^([a-z0-9-]+)", (ROOT / name).read_text(), re.MULTILINE))
        wanted = {re.split(r"[^A-Za-z0-9_-]", requirement)[0].lower().replace("_", "-") for requirement in requirements}
        assert wanted - locked == set(), f"`make lock` was not run after a change of pyproject.toml ({name})"


def test_every_module_says_what_it_is() -> None:
    silent = [str(p.relative_to(ROOT)) for p in modules() if p.read_text().strip() and not _docstring(p)]
    assert silent == []


def _docstring(path: Path) -> str | None:
    return ast.get_docstring(ast.parse(path.read_text()))


def test_nothing_is_left_for_later() -> None:
    code = (".py", ".sh", ".sql", ".toml", ".yml", ".yaml", ".js", ".html", ".css", ".md")
    found = [
        f"{name}: {match.group(0)}"
        for name, text in texts()
        if name.endswith(code)
        for match in FORBIDDEN.finditer(text)
    ]
    assert found == []


def test_the_licence_is_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    # The text as the Free Software Foundation hands it out, apart from line ends and the scheme of its addresses.
    canonical = re.sub(r"\s+", " ", text.replace("https://", "http://")).strip()
    assert hashlib.sha256(canonical.encode()).hexdigest() == LICENCE_SHA256


LICENCE_SHA256 = "dfe92cd64d2a43540f4848c797ca65a9948ac5d52e760c5cc3e0c0166fd8b49f"


def test_architecture_decisions_are_listed() -> None:
    index = (ROOT / "docs" / "adr" / "README.md").read_text()
    records = sorted(path.name for path in (ROOT / "docs" / "adr").glob("[0-9]*.md"))
    assert len(records) >= 5
    assert [name for name in records if f"({name})" not in index] == []
    for name in records:
        text = (ROOT / "docs" / "adr" / name).read_text()
        assert all(f"## {part}" in text for part in ("Context", "Decision", "Consequences")), name
