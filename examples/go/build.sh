#!/usr/bin/env bash
# Generates the contract's code and builds the sample into build/. Needs no network, but these packages of Debian 12:
#   golang-go golang-google-grpc-dev golang-github-golang-protobuf-1-5-dev protobuf-compiler protoc-gen-go-1-5 protoc-gen-go-grpc
# They are old; the sample needs nothing newer. See README.md for the way with Go modules.
set -euo pipefail
cd "$(dirname "$0")"

path=headrace-example/headracev1
rm -rf build headracev1
mkdir -p build/gopath/src headracev1
protoc --proto_path=../../proto \
  --go_out=headracev1 --go_opt="Mheadrace/v1/video.proto=$path;headracev1,module=$path" \
  --go-grpc_out=headracev1 --go-grpc_opt="Mheadrace/v1/video.proto=$path;headracev1,module=$path" \
  headrace/v1/video.proto

ln -s "$PWD" build/gopath/src/headrace-example
export GO111MODULE=off GOPATH="$PWD/build/gopath:/usr/share/gocode" GOFLAGS=
cd build/gopath/src/headrace-example
go vet .
go build -o build/headrace .
