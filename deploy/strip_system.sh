#!/bin/sh
# Turns a Debian base image into what runs a service: no pip, no package caches, no manuals; one unprivileged user.
set -eu
rm -rf /var/cache/apt/* /var/lib/apt/lists/* /var/log/* /var/cache/debconf/* /root/.cache /tmp/* \
    /usr/share/doc /usr/share/man /usr/share/info /usr/share/locale /usr/share/python-wheels
python3 - <<'PYTHON'
import shutil
import site
import sysconfig
from pathlib import Path

places = {sysconfig.get_paths()["purelib"], sysconfig.get_paths()["stdlib"], *site.getsitepackages(), "/usr/lib/python3/dist-packages"}
for place in map(Path, places):
    for tool in ("pip", "setuptools", "wheel", "pkg_resources", "ensurepip", "idlelib", "lib2to3", "test"):
        for found in [place / tool, *place.glob(f"{tool}-*.dist-info"), *place.glob(f"{tool}-*.egg-info")]:
            shutil.rmtree(found, ignore_errors=True)
PYTHON
rm -f /usr/bin/pip* /usr/local/bin/pip* /usr/local/bin/idle*
echo 'stillmotion:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd
echo 'stillmotion:x:10001:' >> /etc/group
