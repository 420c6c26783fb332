"""What webhooks and links are signed with."""

from pathlib import Path

from gateway.auth.signing import open_signer


def test_the_secret_is_drawn_once_kept_to_its_owner_and_given_by_the_setting(tmp_path: Path) -> None:
    first, second = open_signer(None, tmp_path), open_signer(None, tmp_path)
    assert first.webhook_secret("a") == second.webhook_secret("a") != first.webhook_secret("b")
    assert first.links_key() != first.webhook_secret("links").encode()
    assert (tmp_path / "secret").stat().st_mode & 0o777 == 0o600
    assert {path.name for path in tmp_path.iterdir()} == {"secret", "secret.lock"}
    given = open_signer("sixteen letters!", tmp_path)
    assert given.webhook_secret("a") == open_signer("sixteen letters!", tmp_path / "elsewhere").webhook_secret("a")
    assert given.webhook_secret("a") != first.webhook_secret("a")
