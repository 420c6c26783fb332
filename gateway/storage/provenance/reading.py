"""What a file says of how it was made, and whether that still holds. Reads the file alone; asks nobody."""

from pathlib import Path
from typing import Any

from contracts.jobs import Provenance
from gateway.storage.provenance.certificate import SELF_MADE
from gateway.storage.provenance.marking import RENDER_ASSERTION

# Who vouches for a signer is for whoever asks to judge: this tells whether the file is as it was signed.
_TRUST = "signingCredential.untrusted"
_OFFLINE = {"verify": {"remote_manifest_fetch": False, "ocsp_fetch": False}}


def read_provenance(path: Path) -> Provenance:
    """Blocking; a file without a manifest, or that is no video, has the state `none`; raises `OSError`."""
    import c2pa

    with path.open("rb"):
        pass  # a file that cannot be read is told as such
    try:
        with c2pa.Context.from_dict(_OFFLINE) as context, c2pa.Reader(str(path), context=context) as reader:
            manifest = reader.get_active_manifest() or {}
            results = (reader.get_validation_results() or {}).get("activeManifest", {})
    except c2pa.C2paError as error:
        return Provenance(state="none", problems=[str(error)])
    failures = [failure["code"] for failure in results.get("failure", [])]
    return _told(manifest, [code for code in failures if code != _TRUST])


def _told(manifest: dict[str, Any], problems: list[str]) -> Provenance:
    data = {one["label"]: one["data"] for one in manifest.get("assertions", [])}
    actions = data.get("c2pa.actions.v2", {}).get("actions", [])
    created = next((action for action in actions if action.get("action") == "c2pa.created"), {})
    render, signature = data.get(RENDER_ASSERTION, {}), manifest.get("signature_info", {})
    generator = next(iter(manifest.get("claim_generator_info", [])), {})
    return Provenance(
        state="invalid" if problems else "valid", problems=problems, signed_by=signature.get("issuer"),
        self_made=signature.get("issuer") == SELF_MADE, source_type=created.get("digitalSourceType"),
        made_at=created.get("when"), product=" ".join(
            str(generator[part]) for part in ("name", "version") if part in generator) or None,
        model=render.get("model"), revision=render.get("revision"), input_sha256=render.get("input_sha256"),
        prompt=render.get("prompt"),
    )
