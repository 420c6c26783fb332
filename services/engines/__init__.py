"""Engines of any service's graphs: built by ONNX Runtime's or TensorRT's tools, compared with torch, and run."""
