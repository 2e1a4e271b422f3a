"""ONNX Runtime as a target. `session` needs no torch; `target` is what implements the contract."""
