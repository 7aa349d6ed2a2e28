"""Pages of the Python API: the public names of `fastreason` by subpackage, and modules that users import by path."""

from __future__ import annotations

import fastreason as fr

# page: its title, what is on it, and modules documented whole
_PAGES: dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]] = {
    "tasks": ("Problems", ("tasks",), ("tasks.graph", "tasks.export", "tasks.graph_census")),
    "text": ("Tokens and themes", ("text",), ()),
    "grading": ("Grading", ("grading",), ("grading.rewards", "grading.failure_kinds", "evaluation.grade_completions")),
    "model": ("Model", ("model",), ("model.flop",)),
    "sampling": ("Sampling", ("sampling",), ()),
    "training": ("Training", ("training",), ("training.checkpoint",)),
    "rl": ("Reinforcement learning", ("rl",), ("rl.edge_curriculum",)),
    "evaluation": ("Evaluation", ("evaluation",), ("evaluation.evaluate",)),
    "studies": ("Runs, recipes and studies", ("studies", "runner"), ("studies.study", "reports.study_page")),
    "kernels": ("Kernels", (), ("kernels",)),
    "integrations": (
        "Adapters",
        ("integrations",),
        tuple(
            f"integrations.{name}" for name in ("trl", "verl", "verifiers", "lm_eval", "reasoning_gym", "text_reward")
        ),
    ),
    "cuda": ("CUDA", (), ("runtime.cuda",)),
}


def api_pages() -> dict[str, str]:
    """Markdown of all pages by file name.

    Raises:
        RuntimeError: a public name is on none of them.
    """
    homes: dict[str, str] = fr._HOME
    pages = {}
    shown: set[str] = set()
    for page, (title, subpackages, modules) in _PAGES.items():
        parts = [f"# {title}\n"]
        for name, module in homes.items():
            if module.split(".")[0] in subpackages:
                shown.add(name)
                parts.append(f"::: fastreason.{module}.{name}\n    options:\n      heading: fr.{name}\n")
        for module in modules:
            shown |= {name for name, target in fr._MODULES.items() if target == module}
            hidden = [name for name, home in homes.items() if home == module]
            filters = ["!^_", *(f"!^{name}$" for name in hidden)]
            parts.append(
                f"::: fastreason.{module}\n    options:\n      heading: fastreason.{module}\n"
                f"      filters: {filters!r}\n      show_submodules: false\n"
            )
        pages[f"{page}.md"] = "\n".join(parts)
    if missing := set(fr.__all__) - shown:
        raise RuntimeError(f"docs/site/api_pages.py: no page for {', '.join(sorted(missing))}")
    return pages
