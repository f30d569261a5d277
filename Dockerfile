# Works with Docker, BuildKit, Podman and Buildah: nothing here needs BuildKit.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# Only the dependencies, so that this layer is rebuilt only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked

COPY . .
# Newer than the build of the placeholders, which cargo would otherwise consider up to date. Line number
# tables would be three quarters of the binary; backtraces name functions without them.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked \
    && strip --strip-debug target/release/anomaly-counter


# The same Debian release as the build, hence the same libc.
FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="anomaly-counter" \
      org.opencontainers.image.description="Counts how often an anomaly happens, and says when to stop restarting and fix the cause" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"

# Before VOLUME: a new named volume inherits this owner.
RUN install -d -o 10001 -g 10001 /data

COPY --from=build /build/target/release/anomaly-counter /usr/local/bin/
# For rediss:// and for the https:// of a trace collector, if a public CA signed the server's certificate.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/

# 127.0.0.1 of a container is not reachable from outside.
ENV ANOMALY_COUNTER__LISTEN=0.0.0.0:8080 \
    ANOMALY_COUNTER__DATA_DIR=/data

# Numeric, so that Kubernetes can verify that it is not root.
USER 10001:10001

# Configuration files are read from config/ here: mount yours as /config/*.toml.
WORKDIR /

# The only writable directory: the root file system may be read-only.
VOLUME /data
EXPOSE 8080

# The command's own timeout of 3 seconds ends first, and reports the error.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/anomaly-counter", "healthcheck"]

# Exec form: the service itself is process 1, and receives SIGTERM.
ENTRYPOINT ["/usr/local/bin/anomaly-counter"]
