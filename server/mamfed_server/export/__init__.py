"""A run's network for other tools: ONNX, TorchScript, a MONAI bundle, plain weights."""
