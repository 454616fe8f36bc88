#!/usr/bin/env bash
# Boots the hypervisor in QEMU and prints its output: a table of the run and a verdict, which is the exit status.
#
# usage: metal/run.sh ARCH [--cpus N] [--seconds N] [--sabotage NAME] [--limit SECONDS]   ARCH is aarch64 or riscv64
#
# `--sabotage` makes a fault, to show that a check detects it: the names are in src/options.rs. After `--limit` seconds
# without a verdict the run has failed.
set -euo pipefail
cd "$(dirname "$0")"

usage() {
    sed -n 's/^# usage: //p' "$0" >&2
    exit 2
}

number() {
    [[ $2 =~ ^[1-9][0-9]{0,4}$ ]] && [ "$2" -le "$3" ] || {
        echo "error: $1 takes a number from 1 to $3" >&2
        exit 2
    }
}

[ $# -gt 0 ] || usage
arch=$1
shift
cpus=4 seconds=10 sabotage='' limit=''
while [ $# -gt 0 ]; do
    [ $# -gt 1 ] || usage
    case $1 in
    --cpus) number "$1" "$2" 64 && cpus=$2 ;;
    --seconds) number "$1" "$2" 86400 && seconds=$2 ;;
    --sabotage) sabotage=$2 ;;
    --limit) number "$1" "$2" 99999 && limit=$2 ;;
    *) usage ;;
    esac
    shift 2
done
# The host may have few cores, and other work.
limit=${limit:-$((3 * seconds + 150 + 10 * cpus))}

case $arch in
aarch64)
    target=aarch64-unknown-none-softfloat
    package=qemu-system-arm
    # The start of the guest's memory in the machine's: memory.rs.
    load=0x60000000
    machine=(-machine 'virt,virtualization=on,gic-version=3' -cpu cortex-a72
        -semihosting-config 'enable=on,target=native')
    ;;
riscv64)
    target=riscv64gc-unknown-none-elf
    package=qemu-system-misc
    load=0xa0000000
    machine=(-machine virt -cpu 'rv64,h=true')
    ;;
*) usage ;;
esac

if ! command -v "qemu-system-$arch" >/dev/null; then
    sudo=$([ "$(id -u)" -eq 0 ] || echo sudo)
    $sudo apt-get update -qq
    $sudo apt-get install -y -qq --no-install-recommends "$package" opensbi
fi

CARGO_TARGET_DIR=$(realpath -m "${CARGO_TARGET_DIR:-../target}/metal")
export CARGO_TARGET_DIR
cargo build --locked --quiet --release --target "$target"
built=$CARGO_TARGET_DIR/$target/release

log=$(mktemp)
trap 'rm -f "$log"' EXIT
status=0
timeout --foreground --kill-after 5 "$limit" "qemu-system-$arch" "${machine[@]}" -accel tcg,thread=multi \
    -smp "$cpus" -m 1G -display none -monitor none -serial stdio -nic none \
    -kernel "$built/hypervisor" -device "loader,file=$built/guest,addr=$load,force-raw=on" \
    -append "seconds=$seconds${sabotage:+ sabotage=$sabotage}" </dev/null | tee "$log" || status=${PIPESTATUS[0]}

if [ "$status" -eq 124 ] || [ "$status" -eq 137 ]; then
    echo "FAILED: no verdict in $limit s"
    exit 1
fi
[ "$status" -eq 0 ] || exit "$status"
# The status alone is not enough.
grep -q '^OK' "$log" || {
    echo 'FAILED: the machine has ended without a verdict'
    exit 1
}
