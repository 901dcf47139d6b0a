"""
Draw docs/images/digits.png: held-out pictures with what both versions answer.

    python tools/demo/digits/contact_sheet.py

Shows every tenth picture: chosen by position, not by how well it was answered.
"""

import csv
import io
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
COLUMNS, CELL, CAPTION, GAP = 10, 76, 22, 8
RIGHT, WRONG, PAPER = (21, 128, 61), (200, 30, 30), (255, 255, 255)


def main() -> None:
    """Draw the sheet."""
    sessions = [
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (CHECKOUT / "model_repository/digits/1/model.onnx", HERE / "digits-v2.onnx")
    ]
    with (HERE / "evaluation/labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))[::10]
    lines = -(-len(rows) // COLUMNS)
    size = (COLUMNS * (CELL + GAP) + GAP, lines * (CELL + CAPTION + GAP) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, row in enumerate(rows):
        x = GAP + number % COLUMNS * (CELL + GAP)
        y = GAP + number // COLUMNS * (CELL + CAPTION + GAP)
        with Image.open(io.BytesIO((HERE / "evaluation" / row["file"]).read_bytes())) as opened:
            picture = opened.convert("RGB")
        pixels = np.asarray(picture).astype(np.float32)[np.newaxis]
        picture.thumbnail((CELL, CELL))
        scale = CELL / max(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size])
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        for version, session in enumerate(sessions, start=1):
            answer = int(np.argmax(session.run(None, {"input": pixels})[0]))
            colour = RIGHT if f"{answer:02d}" == row["category"] else WRONG
            place = (x + (version - 1) * CELL // 2 + 2, y + CELL + 2)
            draw.text(place, f"v{version}: {answer}", fill=colour, font=font)
    sheet.quantize(128).save(CHECKOUT / "docs/images/digits.png", optimize=True)


if __name__ == "__main__":
    main()
