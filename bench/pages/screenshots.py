"""Screenshots of reports: wide and narrow, light and dark, in headless Chromium.

    python -m bench.pages.screenshots --out docs/pages

The pages are that of a study among the results of the documentation, and that of `fastreason run smoke`, which takes
half a minute. Pictures have 256 colors, to be small.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import fastreason as fr
from fastreason.reports.study_page import write_report

from .study_pages import photograph

STUDY = Path("docs/results/finding-1-edge")
SIZES = {"wide": (1000, 1500), "narrow": (390, 1500)}
SCHEMES = {"dark": 0, "light": 1}  # as Blink numbers them
_COLORS = 256


def take(page: Path, picture: Path, size: tuple[int, int], scheme: str) -> None:
    """The top of a page, as PNG.

    Raises:
        FileNotFoundError: Chromium is not installed.
    """
    from PIL import Image

    width, height = size
    with tempfile.TemporaryDirectory() as folder:
        # a window is at least 500 pixels wide, so a narrow page is a frame in it
        frame, whole = Path(folder) / "frame.html", Path(folder) / "whole.png"
        frame.write_text(
            f'<body style="margin:0"><iframe src="{page.resolve().as_uri()}" '
            f'style="border:0;width:{width}px;height:{height}px"></iframe>'
        )
        flags = [f"--user-data-dir={folder}/profile", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"]
        if not photograph(frame, whole, (max(width, 500), height), *flags):
            raise FileNotFoundError("screenshots: chromium is not installed")
        with Image.open(whole) as image:
            image.crop((0, 0, width, height)).convert("RGB").quantize(_COLORS).save(picture, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("docs/pages"))
    parser.add_argument("--run", type=Path, help="a finished run, instead of running smoke")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        study = Path(folder) / "study"
        shutil.copytree(STUDY, study)
        run = options.run or Path(folder) / "run"
        if options.run is None:
            fr.run("smoke", run)
        for name, place in {"study": study, "run": run}.items():
            page = write_report(place)
            for width, size in SIZES.items():
                for scheme in SCHEMES:
                    take(page, options.out / f"{name}-{width}-{scheme}.png", size, scheme)


if __name__ == "__main__":
    main()
