"""`stillmotion verify FILE`: what a video says of how it was made, and whether that still holds. Needs no server."""

import json
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from contracts.jobs import Provenance
from gateway.storage.provenance.reading import read_provenance

_EXIT = {"valid": 0, "invalid": 1, "none": 2}
_SAID = {
    "valid": ("The file is as it was signed.", "green"),
    "invalid": ("The file was changed after it was signed.", "red"),
    "none": ("The file does not say how it was made.", "yellow"),
}
_ROWS = {
    "signed_by": "Signed by", "source_type": "Source", "made_at": "Made at", "product": "By", "model": "Model",
    "revision": "Revision", "input_sha256": "Picture's SHA-256", "prompt": "Prompt",
}


def verify(path: Path, console: Console, *, as_json: bool) -> int:
    """Print it; returns the exit status: 0 valid, 1 changed, 2 no manifest. Raises `OSError`."""
    told = read_provenance(path)
    if as_json:
        console.print_json(told.model_dump_json(exclude_none=True))
    else:
        _show(told, console)
    return _EXIT[told.state]


def _show(told: Provenance, console: Console) -> None:
    sentence, colour = _SAID[told.state]
    console.print(Text(sentence, style=f"bold {colour}"))
    table = Table(box=None, show_header=False, pad_edge=False)
    values = json.loads(told.model_dump_json(exclude_none=True))
    for name, label in _ROWS.items():
        if name in values:
            table.add_row(label, Text(str(values[name])))
    console.print(table)
    if told.self_made:
        console.print("The certificate is self-made: it shows that nothing was changed, and not who signed.")
    for problem in told.problems:
        console.print(Text(problem, style="dim"))
