"""What MkDocs does when it builds the site: adds generated pages and those of the repository, and turns links to them."""

from __future__ import annotations

import sys
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # MkDocs imports this file by its path, from any folder

from docs.links import REPOSITORY_PAGES, page_of, turn_links  # noqa: E402
from docs.reference import GENERATED_PAGES  # noqa: E402


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the references, which are written from the parsers and the recipes, and the pages that lie in the repository.

    Args:
        files: those of docs/pages.
        config: of the site.

    Returns:
        The same files and the added ones.
    """
    for name, write in GENERATED_PAGES.items():
        if (placeholder := files.get_file_from_path(name)) is not None:  # for readers of the repository, whose links lead to it
            files.remove(placeholder)
        files.append(File.generated(config, name, content=write()))
    for path in REPOSITORY_PAGES:
        files.append(File.generated(config, page_of(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links to files of the repository into links of the site.

    Args:
        markdown: text of the page.
        page: where it is in the site.
        config: of the site.
        files: of the site.

    Returns:
        The text with its links turned.
    """
    return turn_links(markdown, page.file.src_uri)
