"""The committed page is what its source gives, within its budget."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.browser.workshop import STATIC, WEB, run

pytestmark = pytest.mark.timeout(240)


def test_building_again_gives_the_committed_files(workshop: Path, tmp_path: Path):
    out = tmp_path / "static"
    status, printed = run("npm", "run", "build", cwd=workshop, PAGE_OUT=str(out))
    assert status == 0, printed  # also where it is over its budget
    assert files(out) == files(STATIC), "web/ and api/static/ differ: run `npm run build` in web/ and commit both"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_its_source_passes_the_type_check_and_the_linter(workshop: Path):
    status, printed = run("npm", "run", "check", cwd=workshop)
    assert status == 0, printed


def test_the_lock_file_names_no_host():
    assert '"resolved"' not in (WEB / "package-lock.json").read_text()


def test_the_page_asks_nobody_else():
    """Nothing that a page fetches by itself is addressed to another host."""
    for path in STATIC.rglob("*"):
        if path.suffix in (".html", ".css"):
            assert re.findall(r"(?:src|href)=\"https?:|url\(['\"]?(?:https?:)?//", path.read_text()) == [], path


# Its texts


def table(name: str) -> dict[str, str]:
    source = (WEB / "src" / "i18n" / f"{name}.ts").read_text()
    return dict(re.findall(r"^  '([^']+)': (.+),$", source, re.MULTILINE))


def test_both_languages_have_every_text():
    english, korean = table("en"), table("ko")
    assert len(english) > 250
    assert english.keys() == korean.keys()
    holes = re.compile(r"\{\w+\}")
    for key, text in english.items():
        assert set(holes.findall(text)) == set(holes.findall(korean[key])), key
        assert text not in ("''", '""')


def test_every_text_is_used_and_every_used_text_exists():
    source = "\n".join(
        path.read_text() for path in sorted((WEB / "src").rglob("*.ts*")) if path.name not in ("en.ts", "ko.ts")
    )
    families = tuple(re.findall(r"`([a-z]+\.(?:[a-z]+\.)?)\$\{", source))
    unused = [key for key in table("en") if f"'{key}'" not in source and not key.startswith(families)]
    assert unused == []
