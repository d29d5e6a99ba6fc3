#!/bin/sh
# Builds the deb and the rpm into dist/: build.sh VERSION [ARCH]. nfpm comes from the Go proxy and is no
# dependency of the module.
set -eu
cd "$(dirname "$0")/../.."
VERSION=${1#v} ARCH=${2:-$(go env GOARCH)} ROOT=$(mktemp -d)
export VERSION ARCH ROOT
trap 'rm -rf "$ROOT"' EXIT
OUT=${OUT:-dist}
mkdir -p "$OUT"
hash=$(git rev-parse --short HEAD 2>/dev/null || true)
CGO_ENABLED=0 GOOS=linux GOARCH=$ARCH go build -trimpath -ldflags "-s -w -X main.version=v$VERSION -X main.hash=$hash" -o "$ROOT/rtcd" ./cmd/rtcd
cp build/package/config.toml "$ROOT/config.toml"
gzip -9nc build/package/rtcd.8 >"$ROOT/rtcd.8.gz"
nfpm() {
	if [ -n "${NFPM:-}" ]; then "$NFPM" "$@"; else GOFLAGS=-mod=mod go run github.com/goreleaser/nfpm/v2/cmd/nfpm@v2.41.3 "$@"; fi
}
for kind in deb rpm; do
	nfpm package --config build/package/nfpm.yaml --packager $kind --target "$OUT/"
done
