"""`python -m video_service`: the HTTP process, which starts and supervises the worker."""

import sys

from web.worker.imports import lasting_imports

if __name__ == "__main__":
    with lasting_imports():
        from video_service.http.serve import main
    sys.exit(main())
