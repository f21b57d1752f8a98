"""What the site adds to MkDocs: formulas without a script, notebooks as pages, and the changelog.

Formulas are turned into MathML while the site is built, so a page needs neither a script nor a font
from elsewhere. A notebook becomes a Markdown page of its cells and their stored outputs: it has the
look of every other page, is searched with them, and its links are checked.
"""

from __future__ import annotations

import base64
import html
import json
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: object) -> str:
    """Return the page with every formula as MathML."""
    return FORMULA.sub(_mathml, content)


def _mathml(formula: re.Match[str]) -> str:
    display = "block" if formula[1] == "div" else "inline"
    return convert(html.unescape(formula[2]), display=display)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the changelog, and a page for each notebook with the images that its cells show."""
    root = Path(config.config_file_path).parent
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    files.append(File.generated(config, "changelog.md", content=changelog))
    for notebook in [file for file in files if file.src_uri.endswith(".ipynb")]:
        assert notebook.abs_src_path is not None
        cells = json.loads(Path(notebook.abs_src_path).read_text(encoding="utf-8"))["cells"]
        place = notebook.src_uri.removesuffix(".ipynb")
        parts: list[str] = []
        for index, cell in enumerate(cells):
            source = "".join(cell["source"])
            parts.append(source if cell["cell_type"] == "markdown" else _fenced(source, "python"))
            for number, output in enumerate(cell.get("outputs", [])):
                image = f"{place}-{index}-{number}.png"
                png = output.get("data", {}).get("image/png")
                if png:
                    files.append(File.generated(config, image, content=base64.b64decode(png)))
                parts.append(f"![]({Path(image).name})" if png else _fenced(_text(output), "text"))
        link = f"*This page is a notebook:* [{Path(notebook.src_uri).name}]"
        parts.insert(1, f"{link}({Path(notebook.src_uri).name})")
        files.append(File.generated(config, f"{place}.md", content="\n\n".join(parts) + "\n"))
    return files


def _text(output: dict[str, Any]) -> str:
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))


def _fenced(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
