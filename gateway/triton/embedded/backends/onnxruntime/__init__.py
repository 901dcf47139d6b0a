"""
The `onnxruntime` backend of the embedded Triton, as a Python-based backend.

`model.py` is what Triton's stub loads; the other modules lie beside it. They run in the stub's
process, outside of the gateway, so they import nothing of it.
"""
