#!/usr/bin/env bash
# Puts ONNX Runtime, headers and library for Linux on x86-64, into a folder: ./onnxruntime.sh FOLDER
#
# From npm, for machines that reach a registry and nothing else; an official release has the same
# two folders. The package is made for Unity: its headers lie beside another system's library, and
# are the same for all.
set -euo pipefail
package=com.github.asus4.onnxruntime@0.4.9
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
npm pack --silent --pack-destination "$work" "$package" > /dev/null
tar xzf "$work"/*.tgz -C "$work" --wildcards '*/ios-arm64/*/Headers/*.h' '*/Linux/x64/*.so'
mkdir -p "$1/include" "$1/lib"
mv "$work"/package/Plugins/iOS~/*/ios-arm64/*/Headers/*.h "$1/include"
mv "$work"/package/Plugins/Linux/x64/*.so "$1/lib"
ln -sf libonnxruntime.so "$1/lib/libonnxruntime.so.1" # as programs ask for it
