"""The web page: a Gradio app that knows the public API alone. Import it through `python -m studio`."""
