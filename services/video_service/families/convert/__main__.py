"""`python -m video_service.families.convert`, which `stillmotion convert` runs."""

import sys

from video_service.families.convert.command import main

sys.exit(main())
