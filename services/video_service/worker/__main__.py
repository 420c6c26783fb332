"""`python -m video_service.worker <fd>`: the process that owns the model, supervised by the HTTP process."""

import sys

from video_service.worker.program import open_models, worker_program
from web.worker.child import run

if __name__ == "__main__":
    sys.exit(run(worker_program(open_models)))
