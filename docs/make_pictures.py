"""Make the pictures of the pages, from phantoms: reports, evaluations, DICOM objects as shown."""

from __future__ import annotations

import csv
import io
import json
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from pydicom import Dataset, dcmread

from medllm.phantom import Lesion, make_phantom

IMAGES = Path(__file__).parent / "images"

# No picture is to weigh more on who opens a page of the documentation.
MOST_BYTES = 200_000

# Seeds of this range are drawn for the pictures alone.
FIRST_SEED = 950_000
N_PHANTOMS = 60

# All but those of pixels' gradients, which take minutes and do not add up for the bundled network,
# patch-shapley, which takes as long as these together, and patch-ablation, which is occlusion on
# its grid.
METHODS = (
    *("integrated-gradients", "gradient-x-activation", "grad-cam", "gradient-attention"),
    *("attention-rollout", "occlusion", "rise", "zone-shapley"),
)

# What `medllm` is asked for, by the folder that it writes `report.html` into.
COMMANDS: dict[str, tuple[str, ...]] = {
    "report": ("demo",),
    "evaluation": ("evaluate", "csv", "--root", "phantoms"),
    "explanations": (
        *("evaluate-explanations", "phantom", "--limit", "12", "--finding", "lung_opacity"),
        *("--method", ",".join(METHODS), "--checks", "none", "--sanity", "0"),
    ),
}


@dataclass(frozen=True)
class Picture:
    """One picture of a page.

    Attributes:
        name: File name in `docs/images/`, without `.png`.
        page: Key of `COMMANDS`.
        width: Width of the window, in pixels.
        height: Its height.
        without: CSS selectors of what is left out, so that more of the rest is seen.
    """

    name: str
    page: str
    width: int
    height: int
    without: tuple[str, ...] = ()


PICTURES = (
    Picture("report", "report", 900, 1500, ("#checks", "#findings")),
    Picture("evaluation", "evaluation", 1200, 1040, ("header",)),
    Picture("explanations", "explanations", 1200, 1200, ("header",)),
)

# By file name in `docs/images/`: the object that dcmtk shows, and how wide the picture is.
DICOM_PICTURES = {
    "secondary-capture.jpg": ("sc-lung_opacity.dcm", 1110),
    "presentation-state.jpg": ("gsps-lung_opacity.dcm", 768),
}

# Frames the page and takes out what is left out; the page's own policy forbids it scripts.
FRAME = """<!DOCTYPE html><body style="margin: 0">
<iframe src="{page}" width="{width}" height="{height}" style="border: 0; display: block"></iframe>
<script>
document.querySelector("iframe").addEventListener("load", (event) => {{
  const page = event.target.contentDocument;
  for (const part of {without}) page.querySelector(part).closest("section, header").remove();
}});
</script>"""


def main() -> None:
    """Write every picture anew.

    Raises:
        SystemExit: Chromium or dcmtk is not installed.
    """
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None or shutil.which("dcmp2pgm") is None:
        raise SystemExit("the pictures are taken in chromium and dcmtk; one is not installed.")
    # The browser may still be tidying its profile up.
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _write_phantoms(folder / "phantoms")
        for page, command in COMMANDS.items():
            program = [sys.executable, "-m", "medllm", *command, "--out", page]
            subprocess.run(program, cwd=folder, check=True)  # noqa: S603 - our own command line
        for picture in PICTURES:
            file = IMAGES / f"{picture.name}.png"
            file.write_bytes(_small(_taken(chromium, picture, folder)))
            sys.stdout.write(f"{file}  {file.stat().st_size:,} bytes\n")
        _write_dicom_pictures(folder)


def _write_phantoms(folder: Path) -> None:
    """Write a table of phantoms, every other one with an opacity."""
    folder.mkdir()
    with (folder / "labels.csv").open("w", newline="") as stream:
        table = csv.writer(stream)
        table.writerow(["path", "lung_opacity", "age_years", "sex", "view_position"])
        for seed in range(FIRST_SEED, FIRST_SEED + N_PHANTOMS):
            side = "left" if seed // 2 % 2 else "right"
            lesions = [Lesion("lung_opacity", side, "lower", size=0.9)] if seed % 2 else []
            phantom = make_phantom(seed, size=256, lesions=lesions)
            path = f"{seed}.png"
            Image.fromarray(np.rint(phantom.pixels * 255).astype(np.uint8)).save(folder / path)
            table.writerow([path, len(lesions), phantom.age_years, phantom.sex, phantom.view])


def _taken(chromium: str, picture: Picture, folder: Path) -> Image.Image:
    """Photograph a page in a window of fixed size."""
    frame, shot = folder / "frame.html", folder / "shot.png"
    frame.write_text(
        FRAME.format(
            page=f"{picture.page}/report.html",
            width=picture.width,
            height=picture.height,
            without=json.dumps(picture.without),
        )
    )
    subprocess.run(  # noqa: S603 - a browser found on this machine, a page made here
        [
            chromium,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--allow-file-access-from-files",
            "--hide-scrollbars",
            "--force-device-scale-factor=1",
            f"--user-data-dir={folder / 'profile'}",
            "--virtual-time-budget=5000",
            f"--window-size={picture.width},{picture.height}",
            f"--screenshot={shot}",
            frame.as_uri(),
        ],
        capture_output=True,
        timeout=120,
        check=True,
    )
    return Image.open(shot).convert("RGB")


def _write_dicom_pictures(folder: Path) -> None:
    """Show two DICOM objects of the demo's phantom."""
    source = folder / "report" / "phantom.dcm"
    command = ("explain", str(source), "--format", "dicom", "--out", "results")
    program = [sys.executable, "-m", "medllm", *command]
    subprocess.run(program, cwd=folder, check=True)  # noqa: S603 - our own command line
    for name, (file, width) in DICOM_PICTURES.items():
        path = folder / "results" / "phantom" / "dicom" / file
        shown = folder / "shown.pnm"
        if file.startswith("gsps"):
            _run("dcmp2pgm", "-p", path, source, shown)
            picture = _with_graphics(Image.open(shown).convert("RGB"), dcmread(path))
        else:
            _run("dcm2pnm", path, shown)
            picture = Image.open(shown)
        picture.thumbnail((width, width), Image.Resampling.LANCZOS)
        picture.save(IMAGES / name, quality=80, optimize=True)
        size = (IMAGES / name).stat().st_size
        if size > MOST_BYTES:
            raise ValueError(f"{name} takes {size:,} bytes; make it less wide.")
        sys.stdout.write(f"{IMAGES / name}  {size:,} bytes\n")


def _with_graphics(picture: Image.Image, state: Dataset) -> Image.Image:
    """Draw a presentation state's lines and words, as a viewer does; dcmtk leaves them out."""
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(picture.height / 45)
    for annotation in state.GraphicAnnotationSequence:
        for line in annotation.get("GraphicObjectSequence", ()):
            points = np.reshape(line.GraphicData, (-1, 2)).round().astype(int)
            draw.line([tuple(point) for point in points.tolist()], "#ffd166", 4)
        for words in annotation.get("TextObjectSequence", ()):
            corners = words.BoundingBoxTopLeftHandCorner, words.BoundingBoxBottomRightHandCorner
            place = tuple(np.mean(corners, axis=0) * picture.size)
            text = words.UnformattedTextValue.replace("\r", "")
            outline = {"stroke_width": 3, "stroke_fill": "black"}
            draw.multiline_text(place, text, "#ffd166", font, "mm", align="center", **outline)
    return picture


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - dcmtk, files made here


def _small(picture: Image.Image) -> bytes:
    """Write a picture as PNG in as many colours as its size allows.

    Raises:
        ValueError: It is too large in 16 colours still.
    """
    for colours in (256, 128, 64, 32, 16):
        stream = io.BytesIO()
        # By coverage, for few pixels have the colours of a map and most are grey.
        palette = picture.quantize(colours, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE)
        palette.save(stream, "png", optimize=True)
        if stream.tell() <= MOST_BYTES:
            return stream.getvalue()
    raise ValueError(f"a picture takes {stream.tell():,} bytes; make its window less high.")


if __name__ == "__main__":
    main()
