# syntax=docker/dockerfile:1
# One image per service, with that service's own dependencies and nothing else:
#     docker build --build-arg SERVICE=routing --tag rapport-routing .
# The command line, which also is everything in one process:
#     docker build --build-arg SERVICE=standalone --build-arg PARTS=. --tag rapport .
# To pin the base by digest: --build-arg PYTHON=3.12-slim@sha256:...
ARG PYTHON=3.12-slim

FROM python:${PYTHON} AS builder
ARG SERVICE
ARG PARTS=services/${SERVICE}
WORKDIR /build
# What is locked changes seldom and is a layer of its own; what we write comes after it.
COPY ${PARTS}/requirements.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m venv --without-pip /venv \
    && pip --python /venv --disable-pip-version-check install --require-hashes --requirement requirements.lock
COPY libs/common libs/common
COPY ${PARTS} ${PARTS}
RUN pip --python /venv --disable-pip-version-check install --no-index --no-deps --no-build-isolation --no-cache-dir \
        --target /app ./*/*/ \
    && pip --python /venv uninstall --yes flit-core

FROM python:${PYTHON}
COPY --from=builder /venv /venv
COPY --from=builder /app /app
ARG SERVICE
ENV PATH=/venv/bin:$PATH \
    PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SERVICE=${SERVICE} \
    RAPPORT_HTTP_HOST=0.0.0.0 \
    RAPPORT_HTTP_PORT=8080
WORKDIR /tmp
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(f\"http://127.0.0.1:{os.environ['RAPPORT_HTTP_PORT']}/livez\", timeout=4)"]
# The shell only fills in the name: `exec` leaves Python as the process that gets SIGTERM.
CMD ["sh", "-c", "exec python -m \"rapport.$SERVICE\""]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="rapport-${SERVICE}" \
      org.opencontainers.image.description="Rapport connects customer support with public relations" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
