"""`python -m gateway.cli`: the `stillmotion` command where only the packages are there, as in a container."""

from gateway.cli import main

main()
