"""The text of a web page. Runs in a process of its own: see `threadline.services.confined`."""

from __future__ import annotations

from html import unescape

import orjson

MAX_TITLE = 300


def extract(page: bytes) -> bytes:
    """JSON `{title, text, date, site}` of an HTML page, which may be of any quality and encoding."""
    import trafilatura

    found = trafilatura.bare_extraction(
        page, include_comments=False, include_tables=True, include_links=False, with_metadata=True
    )
    if found is None or isinstance(found, dict) or not found.text:
        return orjson.dumps({"title": _title(page), "text": "", "date": None, "site": None})
    return orjson.dumps(
        {
            "title": (found.title or _title(page))[:MAX_TITLE],
            "text": found.text,
            "date": found.date,
            "site": found.sitename,
        }
    )


def _title(page: bytes) -> str:
    text = page[:100_000].decode("utf-8", errors="replace")
    start = text.lower().find("<title")
    if start < 0:
        return ""
    begin, end = text.find(">", start), text.lower().find("</title", start)
    return unescape(text[begin + 1 : end]).strip()[:MAX_TITLE] if 0 <= begin < end else ""
