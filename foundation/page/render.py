"""Renders a page from a template that extends ``base.html``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jinja2

BASE = Path(__file__).with_name("base.html")


def render_page(template: Path, **values: Any) -> bytes:
    """Render a page.

    Args:
        template: an HTML file that extends ``base.html``.
        **values: of the names in the template; every text is escaped.

    Returns:
        HTML in UTF-8.
    """
    loader = jinja2.ChoiceLoader([jinja2.FileSystemLoader(template.parent), jinja2.FileSystemLoader(BASE.parent)])
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, loader=loader, trim_blocks=True)
    return environment.get_template(template.name).render(**values).encode()
