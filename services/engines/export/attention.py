"""How attention is written in a graph: ONNX's fused operator where the target has a kernel for it, else its parts.

ONNX Runtime takes `Attention` (opset 23) in float32 and float16. TensorRT-RTX 1.7.1 builds it for float16 and bfloat16,
16 to 256 channels a head in steps of 8, and more than one head; for anything else it makes nothing ("not supported by a
dedicated kernel"). The parser of TensorRT for data centres knows it from 10.14 on, and 10.12 is supported here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from onnxscript import ir
from onnxscript import opset23 as onnxscript_opset23

AttentionForm = Literal["fused", "fused-half", "plain"]
"""`fused`: always the operator. `fused-half`: where TensorRT-RTX has a kernel. `plain`: MatMul, Softmax, MatMul."""

FORMS: Mapping[str, AttentionForm] = {"onnx": "fused", "tensorrt-rtx": "fused-half", "tensorrt": "plain"}
"""By target."""

_KERNEL_CHANNELS = range(16, 257, 8)

_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)

op: Any = onnxscript_opset23  # its operators are typed for code inside a script

Translation = dict[Callable[..., Any], Callable[..., Any]]


def opset_of(form: AttentionForm) -> int:
    """The opset of a graph in this form: plain ones are for parsers that know no newer one."""
    return 20 if form == "plain" else 23


def translation_of(form: AttentionForm) -> Translation:
    """How the exporter writes `F.scaled_dot_product_attention`. Its own way is plain at opset 20."""
    if form == "plain":
        return {}

    def translate(
        query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0, is_causal: bool = False,
        scale: float | None = None, enable_gqa: bool = False,
    ) -> Any:
        if dropout_p or is_causal or enable_gqa:
            raise NotImplementedError("causal, grouped or random attention cannot be exported")
        if form == "fused" or _has_kernel(query):
            return op.Attention(query, key, value, attn_mask, scale=scale)[0]
        return _in_parts(query, key, value, attn_mask, scale)

    return {torch.ops.aten.scaled_dot_product_attention.default: translate}


def _has_kernel(query_BHND: Any) -> bool:
    batch, heads, _, channels = query_BHND.shape
    return query_BHND.dtype in _HALF and channels in _KERNEL_CHANNELS and batch * heads > 1


def _in_parts(query_BHND: Any, key_BHND: Any, value_BHND: Any, mask: Any, scale: float | None) -> Any:
    factor = query_BHND.shape[-1] ** -0.5 if scale is None else scale
    # Scaled before the product, which in float16 could leave the range.
    scaled = op.Mul(query_BHND, op.CastLike(op.Constant(value_float=factor), query_BHND))
    scores = op.MatMul(scaled, op.Transpose(key_BHND, perm=[0, 1, 3, 2]))
    if mask is not None:
        scores = op.Add(scores, mask)
    return op.MatMul(op.Softmax(scores, axis=-1), value_BHND)
