"""A module as an ONNX graph: what one is, how it is exported, and in which form its parts are written."""
