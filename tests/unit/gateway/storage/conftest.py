"""A bucket on a real S3 server, as another program sees it."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.moto_server.threaded_moto_server import ThreadedMotoServer

BUCKET = "artifacts"


class Bucket:
    """What lies in the bucket."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self._client: Any = boto3.client(
            "s3", endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s"
        )
        self._client.create_bucket(Bucket=BUCKET)

    def keys(self) -> list[str]:
        """Every object but the marks of deployments."""
        listed = self._client.list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return sorted(item["Key"] for item in listed if "/.deployments/" not in f"/{item['Key']}")

    def data(self, key: str) -> bytes:
        return self._client.get_object(Bucket=BUCKET, Key=key)["Body"].read()

    def put(self, key: str, data: bytes = b"x") -> None:
        self._client.put_object(Bucket=BUCKET, Key=key, Body=data)

    def empty(self) -> None:
        for item in self._client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
            self._client.delete_object(Bucket=BUCKET, Key=item["Key"])


@pytest.fixture(scope="module")
def server() -> Iterator[Bucket]:
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    host, port = moto.get_host_and_port()
    try:
        yield Bucket(f"http://{host}:{port}")
    finally:
        moto.stop()


@pytest.fixture
def bucket(server: Bucket) -> Bucket:
    server.empty()
    return server


def in_bucket(bucket: Bucket, **more: Any) -> dict[str, Any]:
    """The settings of a gateway with its artifacts in the bucket."""
    return {
        "artifacts_url": f"s3://{BUCKET}/videos", "s3_endpoint": bucket.endpoint, "s3_region": "us-east-1",
        "s3_key_id": "k", "s3_secret": "s", **more,
    }
