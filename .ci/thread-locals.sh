#!/usr/bin/env bash
# Shows, on the object files, that no code of the two crates on bare metal has a thread-local or reads the
# thread pointer: axdevice and busmap with every public method compiled, their
# dependencies, and the core library, for each target.
#
# A thread-local is a static, and a static is compiled with its own crate, used or not. A test crate shows that
# first, and shows that each way to find a thread-local works. With targets as arguments, checks these only.
set -euo pipefail
shopt -s inherit_errexit
cd "$(dirname "$0")/.."
source .ci/bare-metal.sh
[ $# -eq 0 ] || bare_metal=("$@")

out=$(realpath -m "${CARGO_TARGET_DIR:-target}/bare-metal")
export CARGO_TARGET_DIR=$out RUSTFLAGS='--cfg object_code -D warnings'
# It shares the dependencies of .ci/objects.sh: run only one of the two at a time.
mkdir -p "$out"
exec 9>"$out/lock"
flock 9
sysroot=$(rustc --print sysroot)
tools=$sysroot/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin

# The crate's object_code.rs must name each public method, except those of busmap/src/rust_vmm, which need std.
for src in src busmap/src; do
    missing=$(git ls-files "$src/*.rs" ':!busmap/src/rust_vmm' | xargs sed -nE 's/^ *pub (const |unsafe )*fn ([a-z_0-9]+).*/\2/p' |
        sort -u | while read -r method; do grep -qw -- "$method" $src/object_code.rs || echo "$method"; done)
    [ -z "$missing" ] || { echo "error: $src/object_code.rs lacks" "$missing" >&2; exit 1; }
done

# A crate with two thread-locals, one of them for an unused generic function, and a function
# that reads the thread pointer.
mkdir -p "$out/planted/src"
cat >"$out/planted/Cargo.toml" <<'END'
[package]
name = "planted"
edition = "2024"
[workspace]
END
cat >"$out/planted/src/lib.rs" <<'END'
#![no_std]
#![feature(thread_local)]
#[thread_local]
static UNUSED: core::cell::Cell<usize> = core::cell::Cell::new(1);
pub fn generic<T: Into<usize>>(value: T) { UNUSED.set(value.into()) }
#[thread_local]
static USED: core::cell::Cell<usize> = core::cell::Cell::new(2);
#[inline(never)]
pub fn function(value: usize) -> usize { USED.replace(value) }
#[inline(never)]
pub fn thread_pointer() -> usize {
    let pointer;
    #[cfg(target_arch = "aarch64")]
    unsafe { core::arch::asm!("mrs {}, TPIDR_EL0", out(reg) pointer) };
    #[cfg(target_arch = "riscv64")]
    unsafe { core::arch::asm!("mv {}, tp", out(reg) pointer) };
    #[cfg(target_arch = "x86_64")]
    unsafe { core::arch::asm!("mov {}, fs:[0]", out(reg) pointer) };
    #[cfg(target_arch = "loongarch64")]
    unsafe { core::arch::asm!("move {}, $tp", out(reg) pointer) };
    pointer
}
END

# The disassembler's notation for the thread pointer.
thread_pointer() {
    case $1 in
        aarch64-*) echo 'tpidr' ;;
        riscv64*) printf '%s\n' '[ \t,(]tp([ \t,)]|$)' ;;
        x86_64-*) echo '%[fg]s:|(rd|wr)[fg]sbase' ;;
        loongarch64-*) echo '[$]tp' ;;
        *) echo "error: no thread pointer known for $1" >&2; return 1 ;;
    esac
}

# The thread-locals in the files: the kind of evidence, the file, and the line.
findings() {
    local pattern
    pattern=$(thread_pointer "$1")
    shift
    "$tools/llvm-readobj" --elf-output-style=GNU --sections --symbols --relocations "$@" | awk '
        /^File: / { file = $2 }
        /^ *\[ *[0-9]+\]/ { line = $0; sub(/^ *\[ *[0-9]+\] */, ""); if ($7 ~ /T/) print "section", file, line }
        $4 == "TLS" || $8 ~ /^__(tls_get_addr|emutls)/ { print "symbol", file, $0 }
        $3 ~ /^R_/ && $3 ~ /TLS|TPOFF|DTPOFF|DTPMOD|TPREL/ { print "relocation", file, $0 }'
    "$tools/llvm-objdump" --disassemble --no-show-raw-insn "$@" | awk -v pattern="$pattern" '
        /file format/ { file = $1 }
        /^ *[0-9a-f]+:/ { line = $0; sub(/^[^:]*:/, ""); sub(/[<#].*/, "")
            if (tolower($0) ~ pattern) print "instruction", file, line }'
}

# `libraries TARGET ARGUMENT…`: builds, and lists the libraries of the target that this made or used.
libraries() {
    local target=$1
    shift
    cargo_for "$target" build --quiet --release --lib --message-format=json "$@" |
        grep -oE '"/[^"]*\.rlib"' | tr -d '"' | grep "/$target/" | sort -u
    # The prebuilt core library.
    ls "$sysroot/lib/rustlib/$target"/lib/lib{core,alloc,compiler_builtins}-*.rlib 2>/dev/null || true
}

for target in "${bare_metal[@]}"; do
    planted=$(RUSTC_BOOTSTRAP=1 libraries "$target" --manifest-path "$out/planted/Cargo.toml" |
        grep '/libplanted[.]')
    planted=$(findings "$target" "$planted")
    for kind in section 'symbol .*6UNUSED' 'symbol .*4USED' relocation instruction; do
        grep -q "^$kind" <<<"$planted" || {
            echo "error: $target: finds no $kind of the planted thread-locals, but:" "$planted" >&2
            exit 1
        }
    done

    list=$(libraries "$target")
    mapfile -t looked_at <<<"$list"
    for crate in axdevice busmap axdevice_base axaddrspace log spin crossbeam_utils boxcar core alloc; do
        grep -qE "/lib${crate}[-.]" <<<"$list" || {
            echo "error: $target: no library of $crate among:" "$list" >&2
            exit 1
        }
    done
    for crate in axdevice busmap; do
        own=$(grep "/lib${crate}[.]" <<<"$list")
        "$tools/llvm-nm" --quiet --defined-only "$own" 2>/dev/null | grep -w "${crate}_api" >/dev/null || {
            echo "error: $target: the public methods are not in $own" >&2
            exit 1
        }
    done
    found=$(findings "$target" "${looked_at[@]}")
    [ -z "$found" ] || { printf 'error: %s: thread-local:\n%s\n' "$target" "$found" >&2; exit 1; }
    echo "$target: nothing thread-local in ${#looked_at[@]} libraries"
done
