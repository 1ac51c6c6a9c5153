"""From values to HTML: the templates, with every text escaped."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse

from api.pages import words
from api.problems import Problem
from astrid import METHOD_VERSION, __version__

HERE: Final = Path(__file__).parent
STYLE: Final = HERE / "static" / "astrid.css"


def mark_code(text: str) -> Markup:
    """Return a text with what stands between backticks as code, everything escaped."""
    parts = [
        Markup("<code>{}</code>").format(part) if i % 2 else escape(part) for i, part in enumerate(text.split("`"))
    ]
    return Markup("").join(parts)


_templates: Final = Environment(
    loader=FileSystemLoader(HERE / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    auto_reload=False,
)
_templates.filters |= {
    "code": mark_code,
    "category": words.name_category,
    "count": words.write_count,
    "short": words.write_short,
    "signed": words.write_signed,
    "growth": words.write_growth,
    "share": words.write_share,
    "day": words.write_day,
    "moment": words.write_moment,
}
_templates.globals |= {
    "words_of": words.words_of,
    "things": words.count_things,
    "version": __version__,
    "method_version": METHOD_VERSION,
    # A changed style sheet gets a new address, so that browsers may keep it for long.
    "style": f"/static/astrid.css?v={hashlib.sha256(STYLE.read_bytes()).hexdigest()[:12]}",
}


def render(template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page; an unknown name in a template is an error, never an empty place."""
    return HTMLResponse(_templates.get_template(template).render(**values), status, {"Cache-Control": "no-cache"})


def render_problem(problem: Problem) -> HTMLResponse:
    """Return a problem as a page for people."""
    answer = render("problem.html", problem.kind.status, problem=problem)
    answer.headers.update(problem.headers)
    return answer
