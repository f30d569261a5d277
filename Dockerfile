# Works with Docker, BuildKit, Podman and Buildah: nothing here needs BuildKit.

FROM rust:1.95-slim-bookworm AS build
WORKDIR /build

# The dependencies alone, so that this layer is made again only when they change.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && touch src/lib.rs \
    && echo 'fn main() {}' >src/main.rs \
    && cargo build --release --locked

COPY . .
# Newer than the placeholders' build, or cargo would take that for up to date. The tables of line numbers
# would be three quarters of the binary; backtraces name functions without them.
RUN touch src/lib.rs src/main.rs \
    && cargo build --release --locked \
    && strip --strip-debug target/release/anomaly-counter


# The same Debian release as the build, hence the same libc.
FROM debian:bookworm-slim

LABEL org.opencontainers.image.title="anomaly-counter" \
      org.opencontainers.image.description="Counts how often an anomaly happens, and says when to stop restarting and fix the cause" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim"

# Before VOLUME: a new named volume takes over this owner.
RUN install -d -o 10001 -g 10001 /data

COPY --from=build /build/target/release/anomaly-counter /usr/local/bin/
# For rediss:// to a server, and https:// to a collector of traces, whose certificate a public CA has signed.
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/

# In a container, 127.0.0.1 would be out of reach from outside of it.
ENV ANOMALY_COUNTER__LISTEN=0.0.0.0:8080 \
    ANOMALY_COUNTER__DATA_DIR=/data

# Numbers, so that Kubernetes can tell that it is not root.
USER 10001:10001

# Configuration files are read from config/ here: mount yours as /config/*.toml.
WORKDIR /

# The only place that is written: the root file system may be read-only.
VOLUME /data
EXPOSE 8080

# Its own time limit of 3 seconds comes first, and says what is wrong.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["/usr/local/bin/anomaly-counter", "healthcheck"]

# Exec form: the service itself is process 1, and gets SIGTERM.
ENTRYPOINT ["/usr/local/bin/anomaly-counter"]
