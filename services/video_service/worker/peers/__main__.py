"""`python -m video_service.worker.peers`: computes a share of its parent's steps, told on standard input."""

import sys

from video_service.worker.peers.peer import follow

if __name__ == "__main__":
    follow(sys.stdin.buffer)
