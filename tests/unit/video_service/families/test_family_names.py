"""What knows a family, or a class of the library that families are made of, lies in families/ and layers/ alone, and in
worker/peers/, where other devices compute a share of such layers.
"""

import re
from pathlib import Path

import video_service
from video_service.families.registry import FAMILIES

ROOT = Path(video_service.__file__).parent
FREE = (ROOT / "families", ROOT / "layers", ROOT / "worker" / "peers")
NAMES = {family.name for family in FAMILIES}
FILES = sorted(path for path in ROOT.rglob("*.py") if not set(FREE) & set(path.parents))


def test_no_other_file_names_a_family_its_layers_or_diffusers() -> None:
    assert len(FILES) > 20
    for path in FILES:
        text = path.read_text()
        imports = "\n".join(re.findall(r"^\s*(?:from|import) .*$", text, re.MULTILINE))
        assert not re.search(r"\b(from|import) diffusers|video_service\.layers", imports), path
        assert set(re.findall(r"video_service\.families\.(\w+)", imports)) <= {"base", "registry"}, path
        assert not [name for name in NAMES if f'"{name}"' in text], path
