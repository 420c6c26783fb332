"""What the layers of a Wan transformer are called in Wan's own code, and in diffusers."""

import re

# diffusers' names, and Wan's own; the order matters where one begins another.
_WAN_NAMES = (
    (r"\.attn1\.", ".self_attn."), (r"\.attn2\.", ".cross_attn."), (r"\.to_([qkv])$", r".\1"), (r"\.to_out\.0$", ".o"),
    (r"\.add_([kv])_proj$", r".\1_img"), (r"\.norm_added_k$", ".norm_k_img"), (r"\.ffn\.net\.0\.proj$", ".ffn.0"),
    (r"\.ffn\.net\.2$", ".ffn.2"), (r"^(blocks\.\d+)\.norm2$", r"\1.norm3"),
    (r"^condition_embedder\.time_embedder\.linear_1$", "time_embedding.0"),
    (r"^condition_embedder\.time_embedder\.linear_2$", "time_embedding.2"),
    (r"^condition_embedder\.text_embedder\.linear_1$", "text_embedding.0"),
    (r"^condition_embedder\.text_embedder\.linear_2$", "text_embedding.2"),
    (r"^condition_embedder\.time_proj$", "time_projection.1"), (r"^proj_out$", "head.head"),
    (r"^condition_embedder\.image_embedder\.norm1$", "img_emb.proj.0"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.0\.proj$", "img_emb.proj.1"),
    (r"^condition_embedder\.image_embedder\.ff\.net\.2$", "img_emb.proj.3"),
    (r"^condition_embedder\.image_embedder\.norm2$", "img_emb.proj.4"),
)


def wan_name(name: str) -> str:
    """A module's name in Wan's own code, from diffusers'."""
    for pattern, replacement in _WAN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def wan_parameter(name: str) -> str:
    """A parameter's name in Wan's own files, from diffusers'."""
    module, _, own = name.rpartition(".")
    if own == "scale_shift_table":
        return f"{module or 'head'}.modulation"
    if own == "pos_embed":
        return "img_emb.emb_pos"
    return f"{wan_name(module)}.{own}"
