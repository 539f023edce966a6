# The image of the hub. Build it with
#   docker build --build-arg VERSION=0.1.0 --build-arg REVISION="$(git rev-parse HEAD)" -t switchyard:0.1.0 .
# The builder and the runtime are both Debian 12, so that the binary finds the glibc it was linked against.

FROM rust:1.95-bookworm AS build
WORKDIR /src

# Dependencies change seldom and take most of the time, so they get a layer of their own, built from the manifests and
# stand-ins for our sources. The stand-in build.rs is there because only a build script makes cargo build the
# [build-dependencies]. Cargo does not look for tests, examples and benches it is not asked to build, as long as the
# manifest names them; so they stay out of the image, and editing one rebuilds nothing here.
# The stand-ins' own artefacts must go: COPY keeps the files' times, and cargo would take sources older than this layer
# for the ones it has already compiled.
# The manifests of benches/versus and clients/conformance are there because cargo reads those of all members; none of it is
# built.
COPY Cargo.toml Cargo.lock ./
COPY client/Cargo.toml client/
COPY benches/versus/Cargo.toml benches/versus/
COPY clients/conformance/Cargo.toml clients/conformance/
RUN mkdir -p src client/src benches/versus/src clients/conformance/src/driver \
    && touch client/src/lib.rs clients/conformance/src/lib.rs \
    && echo 'fn main() {}' > src/main.rs \
    && cp src/main.rs benches/versus/src/ \
    && cp src/main.rs clients/conformance/src/ \
    && cp src/main.rs clients/conformance/src/driver/ \
    && cp src/main.rs build.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --bin switchyard \
    && cargo clean --release --locked --package switchyard --package switchyard-client \
    && rm -r src client/src build.rs

COPY build.rs ./
COPY proto/ proto/
COPY client/ client/
COPY src/ src/
RUN cargo build --release --locked --bin switchyard && mkdir /var/lib/switchyard

# No shell, no package manager, not root. The "cc" flavour and not "static", because unwinding needs libgcc.
FROM gcr.io/distroless/cc-debian12:nonroot

ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="switchyard" \
      org.opencontainers.image.description="An event hub that speaks plain gRPC" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

COPY --from=build /src/target/release/switchyard /usr/local/bin/switchyard

# Streams are kept in data/ below. Mount a volume here to keep them longer than the container.
COPY --from=build --chown=65532:65532 /var/lib/switchyard /var/lib/switchyard
WORKDIR /var/lib/switchyard

# By number, because Kubernetes can only tell from a number that runAsNonRoot holds.
USER 65532:65532
EXPOSE 50051 8080

# Exec form: the hub is process 1 and gets SIGTERM itself, so that it can drain.
ENTRYPOINT ["/usr/local/bin/switchyard"]
# The hub listens on loopback by default, which nobody outside a container can reach. These are flags and not ENV,
# because variables would silently win over a mounted configuration file; arguments given at `docker run` replace them.
CMD ["serve", "--listen", "0.0.0.0:50051", "--ops-listen", "0.0.0.0:8080"]
