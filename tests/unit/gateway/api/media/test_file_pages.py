"""Many uploaded files, and a restart between."""

from collections.abc import Callable
from pathlib import Path

from tests.unit.gateway.conftest import gateway_settings, left_behind, open_client
from tests.unit.gateway.model_services import Services
from tests.unit.gateway.submit.test_uploaded_files import upload


async def test_files_come_in_pages_and_only_so_many(
    tmp_path: Path, services: Services, picture: Callable[..., bytes]
) -> None:
    async with open_client(gateway_settings(tmp_path, services, max_files=3)) as client:
        ids = [(await upload(client, picture(), purpose=f"p{n % 2}"))["id"] for n in range(3)]
        full = await client.post("/v1/files", files={"file": ("cat.png", picture(), "image/png")})
        assert (full.status_code, full.json()["code"]) == (409, "too_many_files")
        assert {name.split("/")[0] for name in left_behind(tmp_path)} == set(ids)
        page = (await client.get("/v1/files", params={"limit": 2})).json()
        assert ([file["id"] for file in page["data"]], page["has_more"]) == (ids[:0:-1], True)
        rest = (await client.get("/v1/files", params={"limit": 2, "after": page["last_id"]})).json()
        assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([ids[0]], False)
        odd = (await client.get("/v1/files", params={"purpose": "p1", "order": "asc"})).json()
        assert [file["id"] for file in odd["data"]] == [ids[1]]
    async with open_client(gateway_settings(tmp_path, services)) as client:
        assert len((await client.get("/v1/files")).json()["data"]) == 3, "a restart sweeps no file away"
        assert (await client.get(f"/v1/files/{ids[0]}/content")).status_code == 200
