"""`python -m vl_service.worker <fd>`: the process that owns the model, supervised by the HTTP process."""

import sys

from vl_service.worker.program import worker_program
from web.worker.child import run

if __name__ == "__main__":
    sys.exit(run(worker_program()))
