"""
The server that the gateway replaces, rebuilt from its contract: one FastAPI process, onnxruntime in
it, a flat folder of models. The contract tests ask both and compare the bytes.

Run as a program: `python original_server.py FOLDER`; it prints the port that it took.
"""

import io
import socket
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import uvicorn
from fastapi import FastAPI, HTTPException
from PIL import Image
from pydantic import Base64Bytes, BaseModel


class RunBody(BaseModel):
    """The body of `run`."""

    image: Base64Bytes


def create_original(folder: Path) -> FastAPI:
    """Make the original server over a folder of NAME.onnx files."""
    # As the FastAPI of its time was.
    app = FastAPI(strict_content_type=False)
    sessions: dict[str, Any] = {}

    @app.get("/api/v1/list")
    def list_models() -> list[str]:
        return sorted(path.stem for path in folder.glob("*.onnx"))

    @app.post("/api/v1/load")
    def load(name: str) -> int:
        path = folder / f"{name}.onnx"
        if not path.is_file():
            raise HTTPException(404, f"Model with name {name} not found.")
        if name not in sessions:
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = 1
            sessions[name] = onnxruntime.InferenceSession(path, options)
        return 200

    @app.post("/api/v1/run/{name}")
    def run(name: str, body: RunBody) -> dict[str, str]:
        if name not in sessions:
            raise HTTPException(409, f"No model with name {name} has been loaded.")
        session = sessions[name]
        image = Image.open(io.BytesIO(body.image))
        pixels = np.array(image)[:, :, :3].astype(np.float32)[np.newaxis]
        scores = session.run(None, {session.get_inputs()[0].name: pixels})[0]
        return {"category": f"{int(np.argmax(scores)):02d}"}

    @app.post("/api/v1/unload")
    def unload(name: str) -> int:
        if name not in sessions:
            raise HTTPException(409, f"No model with name {name} has been loaded.")
        del sessions[name]
        return 200

    return app


if __name__ == "__main__":
    listener = socket.create_server(("127.0.0.1", 0))
    # Callers that come before uvicorn accepts wait in the listener's backlog.
    print(listener.getsockname()[1], flush=True)  # noqa: T201 - the parent reads it
    uvicorn.Server(uvicorn.Config(create_original(Path(sys.argv[1])), log_level="critical")).run(
        sockets=[listener]
    )
