#!/usr/bin/env bash
# Compile pixels.c and matting.c to WebAssembly and write them as program.js: bash apps/web/compile.sh
#
# Needs clang with lld (Debian: apt-get install clang lld). A module of text can be imported by the
# worker and by Node.js alike, without waiting for a file.
set -euo pipefail
cd "$(dirname "$0")"

options="-O3 -msimd128 -mbulk-memory -mnontrapping-fptoint -ffast-math -nostdlib -ffreestanding -Wall -Wextra"
linking="-Wl,--no-entry,--strip-all,--export=__heap_base"
clang --target=wasm32 $options $linking -o program.wasm pixels.c matting.c
{
    echo "// Made by compile.sh from pixels.c and matting.c, sha256 $(cat pixels.c matting.c | sha256sum | cut -d ' ' -f 1)."
    echo "export const PROGRAM = \"$(base64 -w 0 program.wasm)\";"
} > program.js
rm program.wasm
