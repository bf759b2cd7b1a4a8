"""What MkDocs runs when it builds the site: pages that lie elsewhere, generated parts, links that
work in both places.

The pages are read in the repository as often as here, so they link to files of the repository:
`../schema.sql`, `../SECURITY.md`. In the site such a link leads to the page that shows the file,
and is plain text where there is none.
"""

from __future__ import annotations

import logging
import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from pymdownx.superfences import SuperFencesException

from docs.tools import diagrams, generated
from docs.tools.generated import ROOT_PAGES

ROOT = Path(__file__).resolve().parents[2]

SHOWN_AS = {
    "README.md": "index.md",
    "schema.sql": "reference/schema.md",
    "sessiondb/errors.py": "reference/errors.md",
    "sessiondb/limits.py": "reference/limits.md",
    "sessiondb/transfer/redaction.py": "how-to/import-export.md",
    **{source: page for page, source in ROOT_PAGES.items()},
}
"""Files of the repository that a page shows or describes."""

logger = logging.getLogger("mkdocs.hooks")

_LOADED_FROM_ELSEWHERE = re.compile(
    r'<(?:script|link|img|iframe)\b[^>]*\b(?:src|href)="(?:https?:)?//[^"]*"'
)
_LINK = re.compile(r"(?<!!)\[((?:[^\[\]]|\[[^\]]*\])*)\]\((?![a-z]+:)([^)#\s]+)(#[^)\s]*)?\)")
_FENCED = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Draw fenced Mermaid here: the theme would load a script for it from another host."""
    fences = [{"name": "mermaid", "class": "mermaid", "format": _drawn}]
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = fences
    return config


def _drawn(source: str, *_: object, **__: object) -> str:
    try:
        return diagrams.svg(source)
    except ValueError as error:
        # Any other exception would leave the block as it is.
        raise SuperFencesException(str(error)) from error


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose text lies at the top level."""
    for page, source in ROOT_PAGES.items():
        files.append(File.generated(config, page, abs_src_path=str(ROOT / source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, **_: object) -> str:
    """Fill in what is generated, and lead links to pages of the site."""
    here = page.file.src_uri
    folder = "" if here in ROOT_PAGES else posixpath.join("docs", posixpath.dirname(here))
    parts = _FENCED.split(markdown)
    parts[::2] = [_LINK.sub(lambda link: _led(link, folder, here), part) for part in parts[::2]]
    return generated.expand("".join(parts))


def on_post_page(output: str, *, page: Page, **_: object) -> str:
    """Report what a page would load from another host. A link to follow is none of that."""
    for found in _LOADED_FROM_ELSEWHERE.findall(output):
        logger.warning("%s: loaded from another host: %s", page.file.src_uri, found)
    return output


def _led(link: re.Match[str], folder: str, here: str) -> str:
    """Return a link as the site needs it. One that leads nowhere is left for MkDocs to report."""
    text, target, anchor = link.groups()
    path = posixpath.normpath(posixpath.join(folder, target))
    page = SHOWN_AS.get(path) or (path.removeprefix("docs/") if path.startswith("docs/") else None)
    if page is not None:
        return f"[{text}]({posixpath.relpath(page, posixpath.dirname(here) or '.')}{anchor or ''})"
    return text if (ROOT / path).exists() else link[0]
