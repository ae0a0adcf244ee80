# The image: docker build -t fileproxy . && docker run --rm -p 10080:10080 fileproxy
#
# Checked without an engine: tests/lab/test_image.py lints it with hadolint, replays every COPY and RUN in empty layers
# over a Debian with Python, then runs the result as its user on a read-only root. Replayed, not built.
# Everything is in exec form, so that what is replayed is what an engine runs and no shell stands before the service
# (hence single RUNs, which hadolint would join by a shell's &&; they cost nothing in a stage that is thrown away).
ARG PYTHON=3.11.14-slim-bookworm

FROM python:${PYTHON} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
# The pinned dependencies change seldom: their wheels are a layer of their own.
COPY requirements.txt ./
RUN ["pip", "wheel", "--wheel-dir", "/wheels", "--requirement", "requirements.txt"]
COPY pyproject.toml README.md LICENSE ./
COPY fileproxy ./fileproxy
RUN ["pip", "wheel", "--no-deps", "--wheel-dir", "/wheels", "."]
# hadolint ignore=DL3059
RUN ["python", "-m", "venv", "/opt/fileproxy"]
# hadolint ignore=DL3059
RUN ["/opt/fileproxy/bin/pip", "install", "--no-index", "--find-links", "/wheels", \
     "--requirement", "requirements.txt", "fileproxy"]

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="FileProxy" \
      org.opencontainers.image.description="Async file-download proxy: one uninterrupted, byte-exact download" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN ["useradd", "--system", "--uid", "10001", "--user-group", "--home-dir", "/var/lib/fileproxy", "--create-home", \
     "--shell", "/usr/sbin/nologin", "fileproxy"]
COPY --from=build /opt/fileproxy /opt/fileproxy
# All that is ever written lies in the working folder (a volume or a tmpfs) and /tmp: the root may be read-only.
ENV PATH=/opt/fileproxy/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    FILEPROXY_SERVER__RUN_DIR=/var/lib/fileproxy/run \
    FILEPROXY_LOGS__ACCESS=stdout \
    FILEPROXY_LOGS__ERROR=stderr
WORKDIR /var/lib/fileproxy
VOLUME ["/var/lib/fileproxy"]
USER 10001:10001
EXPOSE 10080
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s --retries=3 CMD ["fileproxy", "health"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["fileproxy"]
CMD ["serve"]
