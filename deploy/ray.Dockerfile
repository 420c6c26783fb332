# A node of a Ray cluster: both model services with the embedded checkpoints, and Ray. One image for head and workers, of the
# same Ray as `rayVersion` in deploy/kubernetes/ray.
#   docker build -f deploy/ray.Dockerfile -t stillmotion/ray .
# With what runs engines: --build-arg ENGINE_TARGET=onnx, tensorrt-rtx or tensorrt
ARG BASE_IMAGE=python:3.12-slim-bookworm

# Packages: changes only when pyproject.toml or constraints.txt do.
FROM ${BASE_IMAGE} AS packages
# For networks with a certificate, an index or a folder of wheels of their own (mount the folder with --volume).
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_FIND_LINKS
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv --without-pip /opt/venv
WORKDIR /build
COPY deploy/requirements.py pyproject.toml constraints.txt ./
ARG ENGINE_TARGET
RUN python3 requirements.py video vl ray otel ${ENGINE_TARGET} > requirements.txt \
    && python3 -m pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt

FROM ${BASE_IMAGE} AS code
COPY services/contracts /app/contracts
COPY services/web /app/web
COPY services/engines /app/engines
COPY services/vl_service /app/vl_service
COPY services/video_service /app/video_service
COPY services/on_ray /app/on_ray
# Readable to the user of the image whatever the checkout's umask was; compiled here, for at run time nothing is writable.
RUN chmod -R a+rX /app && python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE} AS models
COPY models/vl /models/embedded/vl
COPY models/video /models/embedded/video
RUN chmod -R a+rX /models

FROM ${BASE_IMAGE} AS system
# KubeRay asks with wget whether a worker is ready.
# On a GPU Triton builds a small C module before its first kernel: with no compiler the fast layers cannot run there.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev wget \
    && { test -e "$(python3 -c 'import sysconfig; print(sysconfig.get_path("include"))')/Python.h" \
        || apt-get install -y --no-install-recommends libpython3-dev; }
COPY deploy/strip_system.sh /tmp/
RUN sh /tmp/strip_system.sh

# Into an empty image: what was removed from the base would otherwise stay in its layers.
FROM scratch
COPY --from=system / /
COPY --from=packages /opt/venv /opt/venv
COPY --from=models /models /models
COPY --from=code /app /app
RUN mkdir /data /engines && chown 10001:10001 /data /engines
# PYTHONPATH: Serve's workers import `on_ray.app:build` in folders of their own.
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 HOME=/tmp PYTHONUNBUFFERED=1 PYTHONPATH=/app \
    STILLMOTION_DATA=/data VIDEO_ENGINES=/engines TRITON_CACHE_DIR=/engines/caches/triton \
    STILLMOTION_MODELS=/models/embedded HF_HOME=/tmp/huggingface
USER 10001:10001
WORKDIR /app
VOLUME /data /engines
EXPOSE 6379 8010 8265
CMD ["ray", "start", "--block", "--head", "--dashboard-host=0.0.0.0"]
