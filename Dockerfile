# One image for `picopay serve`, `picopay worker` and `picopay migrate`.
#
#   docker build -t picopay .
#   docker build -t picopay:embedded --build-arg EMBEDDED=1 .   # brings its own PostgreSQL and Valkey
#
# Both stages have the same base: what is compiled in one runs in the other.
ARG PYTHON_IMAGE=docker.io/library/python:3.13-slim-trixie

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_PYTHON_DOWNLOADS=never \
    UV_SYSTEM_CERTS=1
WORKDIR /build

# What changes seldom comes first: uv, the build's own tools, the dependencies, and the source last.
COPY locks/uv.txt locks/
RUN python3 -m pip install --quiet --no-cache-dir --require-hashes --target /opt/uv -r locks/uv.txt
COPY locks/build.txt locks/
RUN --mount=type=cache,target=/root/.cache/uv \
    /opt/uv/bin/uv venv --quiet /opt/tools \
    && /opt/uv/bin/uv pip install --quiet --python /opt/tools --require-hashes -r locks/build.txt
COPY locks/image.txt locks/run.txt locks/
ARG EMBEDDED=0
RUN --mount=type=cache,target=/root/.cache/uv \
    case "${EMBEDDED}" in 0) lock=image ;; 1) lock=run ;; *) exit 64 ;; esac \
    && /opt/uv/bin/uv venv --quiet /opt/picopay \
    && /opt/uv/bin/uv pip install --quiet --python /opt/picopay --require-hashes -r "locks/${lock}.txt"
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/tools/bin/hatchling build -t wheel -d dist \
    && /opt/uv/bin/uv pip install --quiet --python /opt/picopay --no-deps dist/*.whl

FROM ${PYTHON_IMAGE}

# A name for the number: PostgreSQL's initdb, in the embedded image, asks for one.
RUN groupadd --gid 10001 picopay \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent \
       --shell /usr/sbin/nologin picopay \
    && install --directory --owner 10001 --group 10001 --mode 0700 /var/lib/picopay
COPY --from=builder /opt/picopay /opt/picopay

# The root file system may be read-only: give it a tmpfs at /tmp.
ENV PATH=/opt/picopay/bin:$PATH \
    PICOPAY_DATA_DIR=/var/lib/picopay \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /var/lib/picopay
USER 10001:10001
EXPOSE 8000

# Of the server; a worker has another, or none. Alive is enough: a database that is gone is no
# reason to restart what waits for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/livez', timeout=2)"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="PicoPay" \
      org.opencontainers.image.description="A payments core: exactly-once charges on a double-entry ledger" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

ENTRYPOINT ["picopay"]
CMD ["serve", "--host", "0.0.0.0"]
