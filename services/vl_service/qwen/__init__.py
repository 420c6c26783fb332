"""Qwen-VL: the product's main path."""
