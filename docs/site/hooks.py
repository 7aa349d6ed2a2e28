"""MkDocs hooks: pages made from code and from files outside docs/, and links between them.

`mkdocs build` calls the functions `on_...`. Generated pages exist in memory only, so they cannot go stale.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from api_pages import api_pages
from command_line import command_line_page
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from recipe_pages import fields_page, recipes_page

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
# pages from files outside docs/: path in the repository, path in the site
_OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}


def on_startup(command: str, dirty: bool) -> None:
    """Lays out the package as it is installed, with kernels/ inside it, before the API plugin looks for it."""
    source = ROOT / "build" / "docs-source"
    shutil.rmtree(source, ignore_errors=True)
    python_alone = shutil.ignore_patterns("*.so", "__pycache__", "*.toml", "*.html")
    shutil.copytree(ROOT / "fastreason", source / "fastreason", ignore=python_alone)
    shutil.copytree(ROOT / "kernels", source / "fastreason" / "kernels", ignore=python_alone)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Completes the navigation."""
    sections = {name: section for entry in config.nav or [] for name, section in entry.items()}
    sections["Examples"][:] = ["examples/index.md", *map(_example_site_path, _examples())]
    sections["Results"] += [{path.stem: f"results/{path.name}"} for path in sorted((DOCS / "results").glob("*.md"))]
    api = next(entry["Python"] for entry in sections["Reference"] if "Python" in entry)
    api[:] = [f"reference/api/{name}" for name in api_pages()]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    for path, text in _generated().items():
        files.append(File.generated(config, path, content=text))
    return files


def _generated() -> dict[str, str]:
    """All generated pages by path in the site."""
    pages = {site: (ROOT / path).read_text(encoding="utf-8") for path, site in _OUTSIDE.items()}
    pages |= {_example_site_path(path): _example_page(path) for path in _examples()}
    pages["examples/index.md"] = _examples_page()
    pages |= {f"{folder}/index.md": _folder_page(DOCS / folder) for folder in _linked_folders()}
    pages["reference/command-line.md"] = command_line_page()
    pages["reference/recipes.md"] = recipes_page()
    pages["reference/recipe-fields.md"] = fields_page()
    return pages | {f"reference/api/{name}": text for name, text in api_pages().items()}


def _examples() -> list[Path]:
    folder = ROOT / "examples"
    return [*sorted(folder.glob("*.py")), *sorted((folder / "cluster").glob("*.slurm"))]


def _example_site_path(path: Path) -> str:
    return f"examples/{path.name.removesuffix('.py')}.md"


def _examples_page() -> str:
    rows = []
    for path in _examples():
        about = _example_page(path).split("\n")[2]
        rows.append(f"- [{path.name}]({_example_site_path(path).removeprefix('examples/')}): {about}")
    return "# Examples\n\nScripts to copy. Those in Python take `--help`.\n\n" + "\n".join(rows) + "\n"


def _example_page(path: Path) -> str:
    """The file's own first sentences and the command to run it, then the code."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        _, docstring, code = text.split('"""', 2)
        about, command = docstring.strip().split("\n\n", 1)
        language = "python"
    else:
        about, command = text.split("\n")[1].lstrip("# ").split(": ", 1)
        code, language = text, "bash"
    return f"# {path.name}\n\n{about}\n\n```sh\n{command}\n```\n\n```{language}\n{code.strip()}\n```\n"


def _linked_folders() -> list[str]:
    """Folders that pages of results link to, as paths in docs/."""
    found = set()
    for page in (DOCS / "results").glob("*.md"):
        for target in re.findall(r"\]\(([\w/-]+)/\)", page.read_text(encoding="utf-8")):
            found.add(f"results/{target}")
    return sorted(found)


def _folder_page(folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    kept = [name for name in names if name.endswith((".json", ".toml"))]
    return (
        f"---\nsearch: {{ exclude: true }}\n---\n\n# Files of {folder.name}\n\n"
        + "\n".join(f"- [{name}]({name})" for name in kept)
        + "\n"
    )


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to files of the repository become links to their pages; a file without one keeps its text alone."""
    site = page.file.src_uri
    source = next((path for path, uri in _OUTSIDE.items() if uri == site), f"docs/{site}")
    # words behind the language are for the tests
    markdown = re.sub(r"^```(\w+) [a-z-]+$", r"```\1", markdown, flags=re.M)
    outside_fences = re.split(r"(^(?:```|~~~).*?^(?:```|~~~)[ ]*$)", markdown, flags=re.M | re.S)
    outside_fences[::2] = [_with_links(text, source, site) for text in outside_fences[::2]]
    return "".join(outside_fences)


def _with_links(text: str, source: str, site: str) -> str:
    def replaced(match: re.Match[str]) -> str:
        label, target, anchor = match[1], match[2], match[3] or ""
        if re.match(r"[a-z]+:|/|$", target):
            return match[0]
        path = os.path.normpath(os.path.join(os.path.dirname(source), target))
        found = _site_path(path)
        if found is None:
            return label.strip("[]") if (ROOT / path).exists() else match[0]
        return f"{label}({os.path.relpath(found, os.path.dirname(site) or '.')}{anchor})"

    return re.sub(r"(!?\[[^\]]*\])\(([^)#\s]*)(#[^)\s]*)?\)", replaced, text)


def _site_path(path: str) -> str | None:
    """Where a file of the repository is in the site."""
    if path in _OUTSIDE:
        return _OUTSIDE[path]
    if path == "examples":
        return "examples/index.md"
    if ROOT / path in _examples():
        return _example_site_path(ROOT / path)
    if not path.startswith("docs/"):
        return None
    inside = path.removeprefix("docs/")
    return f"{inside}/index.md" if inside in _linked_folders() else inside


def on_post_page(output: str, page: Page, config: MkDocsConfig) -> str:
    """Refuses what a browser would load from the network."""
    if found := re.search(r"""<(?:script|img|iframe|link)\b[^>]*?(?:src|href)=["']?(?:https?:)?//[^>]*""", output):
        raise PluginError(f"{page.file.src_uri} needs the network: {found[0]}")
    return output
