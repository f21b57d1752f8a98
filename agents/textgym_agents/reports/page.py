"""One HTML file that needs nothing else: styles, script and data are in it.

The data is compressed and in base64, so no text of a rollout can end the element it stands in. The
page's own policy allows the one script and the one style that are in it, and no connections; a
page that is served may ask the server that it came from.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from importlib.resources import files

SCRIPTS = ("core.js", "charts.js", "overview.js", "tokens.js", "rollouts.js", "main.js")
_MARKER = re.compile(r"\{\{(\w+)\}\}")


def make_page(title: str, document: bytes | None) -> str:
    """Return the page of a document.

    Args:
        title: of the page, plain text.
        document: of `make_document`; None for a page that asks its server.
    """
    style = _asset("report.css")
    script = '"use strict";\n(() => {\n' + "".join(map(_asset, SCRIPTS)) + "})();\n"
    values = {
        "title": html.escape(title).encode("utf-8", "replace").decode("utf-8"),
        "policy": _policy(style, script, is_served=document is None),
        "style": style,
        "script": script,
        "payload": "" if document is None else base64.b64encode(document).decode("ascii"),
    }
    return _MARKER.sub(lambda marker: values[marker[1]], _asset("report.html"))


def _asset(name: str) -> str:
    return (files("textgym_agents.reports") / "assets" / name).read_text(encoding="utf-8")


def _policy(style: str, script: str, *, is_served: bool) -> str:
    rules = ["default-src 'none'", f"style-src '{_digest(style)}'"]
    rules += [f"script-src '{_digest(script)}'", "img-src data:", "base-uri 'none'"]
    rules += ["form-action 'none'", *(["connect-src 'self'"] if is_served else [])]
    return "; ".join(rules)


def _digest(text: str) -> str:
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"
