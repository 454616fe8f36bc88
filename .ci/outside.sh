#!/usr/bin/env bash
# Makes projects outside the repository, and builds and runs them: one on busmap, with plain stable Rust, the examples of
# busmap/README.md, a program that hot-plugs while a vCPU runs, and no crate of Axvisor's in its lock file; one on
# busmap for bare metal; and one on axdevice, with the files that README.md and docs/vmm.md show, their examples, and
# examples/vmm.rs, which runs a guest.
set -euo pipefail
cd "$(dirname "$0")/.."

root=$PWD
# Cargo looks for a configuration in all folders above, and rustup for the pinned compiler.
elsewhere=$(mktemp -d)
trap 'rm -rf "$elsewhere"' EXIT
CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-target}/outside")
export CARGO_TARGET_DIR
unset RUSTC_BOOTSTRAP RUSTFLAGS

# An example of a page as a program, without hidden lines: the first example, or the one with the given number.
example() {
    awk -v number="${2:-1}" '
        /^```$/ { within = 0 }
        within && !/^# / { lines[++n] = $0; main = main || /^fn main/ }
        /^```rust$/ { within = ++blocks == number }
        END {
            if (!main) print "fn main() {"
            for (i = 1; i <= n; i++) print lines[i]
            if (!main) print "}"
        }' "$1"
}

# `project NAME DEPENDENCY...`: an empty project with these lines under its dependencies.
project() {
    mkdir -p "$elsewhere/$1/src"
    cd "$elsewhere/$1"
    {
        printf '[package]\nname = "%s"\nedition = "2024"\n\n[dependencies]\n' "$1"
        shift
        printf '%s\n' "$@"
    } >Cargo.toml
}

echo '-- busmap, stable'
project monitor "busmap = { path = \"$root/busmap\" }"
mkdir src/bin
example "$root/busmap/README.md" >src/bin/readme.rs
cat >src/bin/hot_plug.rs <<'END'
//! A device comes and goes while a vCPU polls its port.
use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use busmap::{Device, Direction, Handlers, Port, Registry, Span};

enum Functions {}

type Read = dyn Fn(u64) -> u64 + Send + Sync;

impl Handlers for Functions {
    type Mmio = Read;
    type Port = Read;
    type SysReg = Read;
    type Tag = &'static str;
}

/// Waits until the vCPU has read something else than before.
fn changed(last: &AtomicU64, before: u64) -> u64 {
    while last.load(SeqCst) == before {
        thread::yield_now();
    }
    last.load(SeqCst)
}

fn main() -> Result<(), Box<dyn Error>> {
    let registry = Registry::<Functions>::new();
    let (last, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut vcpu = registry.vcpu();
            while !stop.load(SeqCst) {
                let read = vcpu.dispatch::<Port, _>(Direction::Read, 0x71, 0, |hit| hit.handler()(0x71 - hit.span().first()));
                last.store(read.unwrap_or(0xff), SeqCst);
            }
        });
        let hot_plug = || -> Result<(), Box<dyn Error>> {
            println!("no device: {:#x}", changed(&last, 0));
            let rtc = Device::<Functions>::new("rtc").on::<Port>(Arc::new(|offset| 0x80 + offset));
            let id = registry.add::<Port>(rtc, Span::new(0x70, 0x71).ok_or("no span")?)?;
            println!("{id} was added: {:#x}", changed(&last, 0xff));
            let removed = registry.remove(id)?;
            let rtc = removed.wait_timeout(Duration::from_secs(10))?;
            println!("{} was removed: {:#x}", rtc.tag(), changed(&last, 0x81));
            Ok(())
        };
        let done = hot_plug();
        stop.store(true, SeqCst);
        done
    })
}
END
cargo +stable run --quiet --bin readme
said=$(cargo +stable run --quiet --bin hot_plug)
echo "$said"
[ "$said" = $'no device: 0xff\n#1 was added: 0x81\nrtc was removed: 0xff' ] || {
    echo 'error: unexpected output' >&2
    exit 1
}
if grep -E '^name = "(ax|arm_vgic|riscv_vplic)' Cargo.lock; then
    echo 'error: the lock file of a project that needs busmap only contains the crates above' >&2
    exit 1
fi

echo '-- busmap, for the devices of rust-vmm'
project rust_vmm "busmap = { path = \"$root/busmap\", features = [\"rust-vmm\"] }"
example "$root/busmap/README.md" 2 >src/main.rs
cargo +stable run --quiet

echo '-- busmap, bare metal'
project bare "busmap = { path = \"$root/busmap\" }"
cat >src/lib.rs <<'END'
#![no_std]
extern crate alloc;
use alloc::sync::Arc;
use busmap::{Device, DeviceId, Handlers, Mmio, Refused, Registry, Span};

pub enum Functions {}

impl Handlers for Functions {
    type Mmio = dyn Fn(u64) -> u64 + Send + Sync;
    type Port = core::convert::Infallible;
    type SysReg = core::convert::Infallible;
    type Tag = ();
}

pub static REGISTRY: fn() -> Registry<Functions> = Registry::new;

pub fn plug(registry: &Registry<Functions>, at: Span) -> Result<DeviceId, Refused<Functions>> {
    let device = Device::<Functions>::new(()).on::<Mmio>(Arc::new(|offset| offset));
    registry.add::<Mmio>(device, at)
}
END
# The pinned release is a stable one, too, and has the targets.
pinned=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
for target in aarch64-unknown-none-softfloat riscv64gc-unknown-none-elf x86_64-unknown-none; do
    cargo "+$pinned" build --quiet --target "$target"
done

echo '-- axdevice'
cd "$root"
# The content of a file that a page shows: the block that begins with the file's name.
shown() {
    awk -v name="# $2" '/^```/ { within = 0 } within; index($0, name) == 1 { within = before ~ /^```toml/ } { before = $0 }' "$1"
}
dependencies=$(shown README.md 'Cargo.toml' | grep '^axdevice = ')
further=$(shown docs/vmm.md 'Cargo.toml, further dependencies')
configuration=$(shown README.md .cargo/config.toml)
[ -n "$dependencies" ] && [ -n "$further" ] && [ -n "$configuration" ] || {
    echo 'error: README.md and docs/vmm.md do not show the files' >&2
    exit 1
}
project vmm "${dependencies/…\/axdevice/$root}"
mkdir .cargo
cat >.cargo/config.toml <<<"$configuration"
example "$root/docs/vmm.md" >src/main.rs
cargo +stable run --quiet

echo '-- a machine on KVM, or its stand-in'
printf '%s\n' "$further" >>Cargo.toml
cp "$root/examples/vmm.rs" src/main.rs
mkdir src/bin
example "$root/docs/vmm.md" 2 >src/bin/run_loop.rs
example "$root/README.md" >src/bin/mmio_loop.rs
for mode in '' --no-kvm; do
    said=$(cargo +stable run --quiet --bin vmm -- $mode)
    echo "$said"
    [[ $said == *'it has swapped places with another'*'the other is gone' ]] || {
        echo 'error: the guest printed too little' >&2
        exit 1
    }
done
cargo +stable build --quiet --bin run_loop --bin mmio_loop
