"""`python -m video_service.families.convert`, which `stillmotion convert` runs."""

from video_service.families.convert.command import main
from web.command import run_command

run_command(main)
