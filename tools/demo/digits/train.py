"""
Train the demo's two versions, export them, and measure both on the held-out pictures.

    python tools/demo/digits/train.py

Version 1 is what a first afternoon gives: a narrow network, two thirds of the digits, few passes.
Version 2 is deeper and wider, has all of the digits and is trained longer. Both are honest: the
same split, the same rendering, chosen on the validation part.

Needs torch and scikit-learn, which are no dependencies of the product. Every seed is fixed and one
thread is used: the same packages on the same kind of processor give the same files, byte for byte.
Takes about six minutes.
"""

import hashlib
import json
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version as package_version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import torch
from dataset import DEMO, HERE, Digits, load_split
from evaluate import answer, open_session
from graph import SIDE, Layer, build_classifier, build_preprocessing
from PIL import Image
from rendering import Style, render_digit
from torch import nn

PACKAGES = ("torch", "scikit-learn", "onnx", "onnxruntime", "numpy", "pillow")
BATCH = 64


@dataclass(frozen=True)
class Recipe:
    """One version: how wide, how long, and how many training digits it sees."""

    path: Path
    seed: int
    channels: tuple[int, ...]
    epochs: int
    """Every epoch draws the digits again …"""
    repeats: int
    """… and goes over those drawings this often: drawing costs more than learning."""
    digits: int
    dropout: float


RECIPES = {
    1: Recipe(DEMO / "digits-v1.onnx", 1, (12, 24), epochs=40, repeats=1, digits=900, dropout=0.0),
    2: Recipe(
        DEMO / "digits-v2.onnx", 2, (16, 32, 64), epochs=60, repeats=6, digits=1297, dropout=0.2
    ),
}


class Features:
    """The graph's own preprocessing, run by onnxruntime: training sees what serving sees."""

    def __init__(self) -> None:
        self._session = open_session(build_preprocessing().SerializeToString())

    def of(self, picture: Image.Image) -> npt.NDArray[np.float32]:
        """[1, 16, 16] of one picture."""
        pixels = np.asarray(picture)[:, :, :3].astype(np.float32)[np.newaxis]
        features: npt.NDArray[np.float32] = self._session.run(None, {"input": pixels})[0]
        return features[0]

    def drawn(self, digits: Digits, rng: np.random.Generator) -> npt.NDArray[np.float32]:
        """[n, 1, 16, 16] of digits, each drawn again."""
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


def shuffled(count: int, repeats: int) -> Iterator[torch.Tensor]:
    """Batches of indices, each repeat in an order of its own."""
    for _ in range(repeats):
        yield from torch.randperm(count).split(BATCH)


def train(recipe: Recipe, training: Digits, validation: Digits) -> Network:
    """Train by a recipe; keeps the weights that were best on the validation pictures."""
    torch.manual_seed(recipe.seed)
    rng, features = np.random.default_rng(recipe.seed), Features()
    seen = Digits(training.maps[: recipe.digits], training.classes[: recipe.digits])
    network = Network(recipe.channels, recipe.dropout)
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=1e-3)
    steps = recipe.epochs * recipe.repeats * -(-len(seen) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    judged = torch.from_numpy(features.drawn(validation, np.random.default_rng(99)))
    best, best_accuracy = network.state_dict(), -1.0
    for epoch in range(recipe.epochs):
        network.train()
        inputs = torch.from_numpy(features.drawn(seen, rng))
        classes = torch.from_numpy(seen.classes)
        for chosen in shuffled(len(seen), recipe.repeats):
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
    """Digest, size, and accuracy of a model file on the held-out pictures."""
    answers = answer(open_session(path))
    return {
        "digest": f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
        "size_bytes": path.stat().st_size,
        "pictures": len(answers.labels),
        "right": answers.correct,
        "accuracy": round(answers.correct / len(answers.labels), 4),
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
