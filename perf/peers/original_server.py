"""
The small server that the gateway replaces, rewritten: one process of FastAPI, `def` endpoints in
its thread pool, onnxruntime in the same process with its default options, Pillow, the standard
library's base64, uvicorn's defaults.

    python perf/peers/original_server.py PORT FOLDER_OF_MODELS
"""

import io
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException
from PIL import Image
from pydantic import Base64Bytes, BaseModel


class RunRequest(BaseModel):
    """An image file, in base64."""

    image: Base64Bytes


class RunResponse(BaseModel):
    """The best class, of two digits or more."""

    category: str


def make_app(folder: Path) -> FastAPI:
    """Serve the models of a folder."""
    app = FastAPI()
    sessions: dict[str, onnxruntime.InferenceSession] = {}

    @app.get("/api/v1/list")
    def list_models() -> list[str]:
        return [path.stem for path in folder.glob("*.onnx")]

    @app.post("/api/v1/load")
    def load(name: str) -> int:
        if not (folder / f"{name}.onnx").exists():
            raise HTTPException(404, f"Model with name {name} not found.")
        if name not in sessions:
            sessions[name] = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"))
        return 200

    @app.post("/api/v1/run/{name}")
    def run(name: str, body: RunRequest) -> RunResponse:
        if name not in sessions:
            raise HTTPException(409, f"No model with name {name} has been loaded.")
        image = np.array(Image.open(io.BytesIO(body.image)))[:, :, :3].astype(np.float32)
        session = sessions[name]
        scores = session.run(None, {session.get_inputs()[0].name: image[np.newaxis]})[0]
        return RunResponse(category=f"{int(np.argmax(scores)):02d}")

    @app.post("/api/v1/unload")
    def unload(name: str) -> int:
        if sessions.pop(name, None) is None:
            raise HTTPException(409, f"No model with name {name} has been loaded.")
        return 200

    return app


if __name__ == "__main__":
    uvicorn.run(make_app(Path(sys.argv[2])), host="127.0.0.1", port=int(sys.argv[1]))
