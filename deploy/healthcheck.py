"""Exit 0 when the service in this container is ready: `python healthcheck.py 8000`. Standard library only."""

import sys
from http.client import HTTPConnection, HTTPException


def is_ready(port: int) -> bool:
    """Whether `/readyz` on loopback answers 200 within 5 s."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if is_ready(int(sys.argv[1])) else 1)
