# The web page. A client of the public API; no gateway and no model library inside.
#   docker build -f deploy/studio.Dockerfile -t stillmotion/studio .
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
RUN python3 requirements.py studio otel > requirements.txt \
    && python3 -m pip --python /opt/venv/bin/python install -c constraints.txt -r requirements.txt

FROM ${BASE_IMAGE} AS code
COPY deploy/healthcheck.py /app/
COPY services/contracts /app/contracts
COPY services/web /app/web
COPY services/studio /app/studio
# Readable to the user of the image whatever the checkout's umask was; compiled here, for at run time nothing is writable.
RUN chmod -R a+rX /app && python3 -m compileall -q --invalidation-mode unchecked-hash /app

FROM ${BASE_IMAGE} AS system
COPY deploy/strip_system.sh /tmp/
RUN sh /tmp/strip_system.sh

# Into an empty image: what was removed from the base would otherwise stay in its layers.
FROM scratch
COPY --from=system / /
COPY --from=packages /opt/venv /opt/venv
COPY --from=code /app /app
ENV PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LANG=C.UTF-8 HOME=/tmp PYTHONUNBUFFERED=1 \
    STUDIO_HOST=0.0.0.0
USER 10001:10001
WORKDIR /app
EXPOSE 7861
HEALTHCHECK --interval=5s --timeout=6s --start-period=60s --retries=3 CMD ["python", "healthcheck.py", "7861"]
CMD ["python", "-m", "studio"]
