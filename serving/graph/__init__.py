"""ONNX graphs: their inputs and outputs, a network's and a baseline's, and the check of one before it runs."""
