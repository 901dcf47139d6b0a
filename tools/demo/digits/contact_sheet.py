"""
Draw docs/images/digits.png: held-out pictures with what both versions answer.

    python tools/demo/digits/contact_sheet.py

Shows every tenth picture: chosen by position, not by how well it was answered.
"""

from pathlib import Path

from evaluate import answer, open_session
from PIL import Image, ImageDraw, ImageFont

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[2]
DEMO = CHECKOUT / "gateway/demo"
COLUMNS, CELL, CAPTION, GAP = 10, 76, 22, 8
RIGHT, WRONG, PAPER = (21, 128, 61), (200, 30, 30), (255, 255, 255)


def main() -> None:
    """Draw the sheet."""
    versions = [
        answer(open_session(path)) for path in (DEMO / "digits-v1.onnx", DEMO / "digits-v2.onnx")
    ]
    labels = versions[0].labels
    shown = range(0, len(labels), 10)
    lines = -(-len(shown) // COLUMNS)
    size = (COLUMNS * (CELL + GAP) + GAP, lines * (CELL + CAPTION + GAP) + GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, index in enumerate(shown):
        x = GAP + number % COLUMNS * (CELL + GAP)
        y = GAP + number // COLUMNS * (CELL + CAPTION + GAP)
        with Image.open(versions[0].files[index]) as opened:
            picture = opened.convert("RGB")
        picture.thumbnail((CELL, CELL))
        scale = CELL / max(picture.size)
        picture = picture.resize([round(side * scale) for side in picture.size])
        sheet.paste(picture, (x + (CELL - picture.width) // 2, y + (CELL - picture.height) // 2))
        for version, answers in enumerate(versions, start=1):
            predicted = answers.predictions[index]
            colour = RIGHT if predicted == labels[index] else WRONG
            place = (x + (version - 1) * CELL // 2 + 2, y + CELL + 2)
            draw.text(place, f"v{version}: {predicted}", fill=colour, font=font)
    sheet.quantize(128).save(CHECKOUT / "docs/images/digits.png", optimize=True)


if __name__ == "__main__":
    main()
