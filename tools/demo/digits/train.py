"""
Train the demo's two versions, export them, and measure both on the held-out pictures.

    python tools/demo/digits/train.py

Version 1 is what a first afternoon gives: a narrow network and a few passes. Version 2 is wider and
trained longer. Both are honest: the same split, the same rendering, chosen on the validation part.

Needs torch and scikit-learn, which are no dependencies of the product. Every seed is fixed.
"""

import csv
import hashlib
import io
import json
import platform
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import torch
from dataset import EVALUATION, HERE, Digits, load_split
from graph import SIDE, Layer, build_classifier, build_preprocessing
from PIL import Image
from rendering import Style, render_digit
from torch import nn

REPOSITORY = HERE.parents[2] / "model_repository" / "digits"
PACKAGES = ("torch", "scikit-learn", "onnx", "onnxruntime", "numpy", "pillow")
BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """One version: how wide, how long, and how many training digits it sees."""

    path: Path
    seed: int
    channels: tuple[int, ...]
    epochs: int
    digits: int
    dropout: float


RECIPES = {
    1: Recipe(REPOSITORY / "1" / "model.onnx", 1, (12, 24), epochs=40, digits=900, dropout=0.0),
    2: Recipe(HERE / "digits-v2.onnx", 2, (32, 64, 96), epochs=80, digits=1297, dropout=0.3),
}


class Features:
    """The graph's own preprocessing, run by onnxruntime: training sees what serving sees."""

    def __init__(self) -> None:
        model = build_preprocessing().SerializeToString()
        self._session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])

    def of(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """[1, 16, 16] of one picture."""
        pixels = np.asarray(picture)[:, :, :3].astype(np.float32)[np.newaxis]
        features: npt.NDArray[np.float32] = self._session.run(None, {"input": pixels})[0]
        return features[0]

    def drawn(self, digits: Digits, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """[n, 1, 16, 16] of digits, each drawn anew."""
        return np.stack([self.of(render_digit(m, Style(), rng)) for m in digits.maps])


class Network(nn.Module):
    """3×3 convolutions with ReLU, all but the last pooled, then one over the whole map."""

    def __init__(self, channels: tuple[int, ...], dropout: float) -> None:
        super().__init__()
        widths = (1, *channels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1) for a, b in zip(widths, channels, strict=False)
        )
        side = SIDE // 2 ** (len(channels) - 1)
        self.head = nn.Conv2d(channels[-1], 10, side)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Logits [N, 10] of features [N, 1, 16, 16]."""
        for number, convolution in enumerate(self.convolutions, start=1):
            values = torch.relu(convolution(values))
            if number < len(self.convolutions):
                values = torch.max_pool2d(values, 2)
        return self.head(self.dropout(values)).flatten(1)

    def layers(self) -> list[Layer]:
        """The weights, as the graph wants them."""
        return [
            {"weight": c.weight.detach().numpy(), "bias": c.bias.detach().numpy()}
            for c in [*self.convolutions, self.head]
        ]


def train(recipe: Recipe, training: Digits, validation: Digits) -> Network:
    """Train by a recipe; keeps the weights that were best on the validation pictures."""
    torch.manual_seed(recipe.seed)
    rng, features = np.random.default_rng(recipe.seed), Features()
    seen = Digits(training.maps[: recipe.digits], training.classes[: recipe.digits])
    network = Network(recipe.channels, recipe.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = recipe.epochs * -(-len(seen) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    judged = torch.from_numpy(features.drawn(validation, np.random.default_rng(99)))
    best, best_accuracy = network.state_dict(), -1.0
    for epoch in range(recipe.epochs):
        network.train()
        inputs = torch.from_numpy(features.drawn(seen, rng))
        classes = torch.from_numpy(seen.classes)
        for chosen in torch.randperm(len(seen)).split(BATCH):
            loss = nn.functional.cross_entropy(network(inputs[chosen]), classes[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            answers = network(judged).argmax(1).numpy()
        accuracy = float((answers == validation.classes).mean())
        if accuracy >= best_accuracy:
            best_accuracy = accuracy
            best = {name: value.clone() for name, value in network.state_dict().items()}
        if epoch % 10 == 9 or epoch == recipe.epochs - 1:
            print(f"  pass {epoch + 1}: validation accuracy {accuracy:.3f}", flush=True)
    network.load_state_dict(best)
    return network.eval()


def measure(path: Path) -> dict[str, object]:
    """Accuracy of a model file on the held-out pictures, by the contract's raw pixels."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    with (EVALUATION / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = 0
    for row in rows:
        encoded = (EVALUATION / row["file"]).read_bytes()
        with Image.open(io.BytesIO(encoded)) as picture:
            pixels = np.array(picture)[:, :, :3].astype(np.float32)[np.newaxis]
        scores = session.run(None, {"input": pixels})[0]
        right += f"{int(np.argmax(scores)):02d}" == row["category"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return {
        "digest": f"sha256:{digest}",
        "size_bytes": path.stat().st_size,
        "pictures": len(rows),
        "right": right,
        "accuracy": round(right / len(rows), 4),
    }


def main() -> None:
    """Train, export and measure both versions; write metrics.json."""
    torch.use_deterministic_algorithms(mode=True)
    torch.set_num_threads(1)
    split = load_split()
    versions = {}
    for number, recipe in RECIPES.items():
        print(f"version {number}")
        network = train(recipe, split.training, split.validation)
        model = build_classifier(network.layers(), description=f"digits, version {number}")
        recipe.path.parent.mkdir(parents=True, exist_ok=True)
        onnx.save(model, recipe.path)
        versions[str(number)] = measure(recipe.path)
        print(f"  held-out: {versions[str(number)]}")
    packages = {name: package_version(name) for name in PACKAGES}
    report = {"versions": versions, "packages": {"python": platform.python_version(), **packages}}
    (HERE / "metrics.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
