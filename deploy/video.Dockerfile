# The video service, with the embedded checkpoint.
#   docker build -f deploy/video.Dockerfile -t stillmotion/video .
# With what builds and runs engines (docs/engines.md): --build-arg ENGINE_TARGET=onnx, tensorrt-rtx or tensorrt
# With more of pyproject.toml's extras: --build-arg EXTRAS=flash (an H100 or H200)
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
ARG EXTRAS
RUN python3 requirements.py video otel ${ENGINE_TARGET} ${EXTRAS} > requirements.txt \
    && python3 -m pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt

FROM ${BASE_IMAGE} AS code
COPY deploy/healthcheck.py /app/
COPY services/contracts /app/contracts
COPY services/web /app/web
COPY services/engines /app/engines
COPY services/video_service /app/video_service
# Readable to the user of the image whatever the checkout's umask was; compiled here, for at run time nothing is writable.
RUN chmod -R a+rX /app && python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE} AS models
COPY models/video /models/embedded/video
RUN chmod -R a+rX /models

FROM ${BASE_IMAGE} AS system
# On a GPU Triton builds a small C module before its first kernel: with no compiler the fast layers cannot run there.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
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
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 HOME=/tmp PYTHONUNBUFFERED=1 \
    VIDEO_HOST=0.0.0.0 STILLMOTION_DATA=/data VIDEO_ENGINES=/engines TRITON_CACHE_DIR=/engines/caches/triton \
    STILLMOTION_MODELS=/models/embedded HF_HOME=/tmp/huggingface
USER 10001:10001
WORKDIR /app
VOLUME /data /engines
EXPOSE 8002
HEALTHCHECK --interval=5s --timeout=6s --start-period=15m --retries=3 CMD ["python", "healthcheck.py", "8002"]
CMD ["python", "-m", "video_service"]
