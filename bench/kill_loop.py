"""The long storm: 300 jobs, 60 kills of gateways, the video service and its worker; then every promise is checked.

    python -m bench.kill_loop [--jobs 300] [--kills 60] [--postgres] [--gateways 2] [--output bench/results/NAME.json]
"""

import argparse
import dataclasses
import json
import os
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

from tests.checkpoints.tiny_wan import save_tiny_wan
from tests.support.postgres import postgres_server
from tests.support.storm import Deployment, storm
from tests.unit.gateway.model_services import running_services


def main() -> int:
    """Run one storm; 0 where every promise was kept."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--between-kills-s", type=float, default=2.0)
    parser.add_argument("--gateways", type=int)
    parser.add_argument("--postgres", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--output", type=Path)
    asked = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kill-loop-", ignore_cleanup_errors=True)))
        url = stack.enter_context(postgres_server()).new_database() if asked.postgres else None
        vl = stack.enter_context(running_services())
        deployment = Deployment(
            folder, save_tiny_wan(folder / "wan"), vl.vl_url, database_url=url,
            gateways=asked.gateways or (2 if asked.postgres else 1),
        )
        stack.callback(deployment.stop)
        deployment.start()
        report = storm(
            deployment, jobs=asked.jobs, kills=asked.kills, between_kills_s=asked.between_kills_s, seed=asked.seed
        )
        if not report.kept_every_promise:
            _tell_errors(folder)
    figures = {
        "database": "postgres" if asked.postgres else "sqlite", "gateways": len(deployment.gateways),
        "load_average_after": round(os.getloadavg()[0], 2), **dataclasses.asdict(report),
        "kept_every_promise": report.kept_every_promise,
    }
    for name, value in figures.items():
        print(f"{name:22}{value}")
    if asked.output:
        asked.output.write_text(json.dumps(figures, indent=2) + "\n")
    return 0 if report.kept_every_promise else 1


def _tell_errors(folder: Path) -> None:
    """What the gateways logged as errors: the folder is gone when this process ends."""
    for path in sorted(folder.glob("gateway-*.log")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"level": "ERROR"' in line:
                print(f"{path.name}: {line}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
