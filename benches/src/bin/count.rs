//! What `.ci/instructions.sh` counts the instructions of: `count SCENARIO N` makes `N` accesses.
//! Without arguments it lists the scenarios.

use std::{env, hint::black_box};

use anyhow::{Context, Result, bail};
use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, DeviceAddrRange, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, Dispatcher, SharedVmDevices, Unbound, Unmapped};
use axdevice_base::BaseDeviceOps;
use axdevice_benches::{
    Bus, Nothing, Pattern, accesses,
    guarded::{Register, at, distributor, redistributor, registers},
    log_nothing,
};

type Addr<R> = <R as DeviceAddrRange>::Addr;

const WIDTH: AccessWidth = AccessWidth::Dword;

/// Makes `n` accesses, which alone are counted.
#[inline(never)]
fn counted<A: Copy>(addrs: &[A], n: usize, access: &mut impl FnMut(A)) {
    for addr in &addrs[..n] {
        access(black_box(*addr));
    }
}

/// Makes some accesses, so that all is set up, and then `n`.
fn count<R: Bus>(pattern: Pattern, devices: usize, n: usize, mut access: impl FnMut(Addr<R>)) {
    let addrs: Vec<_> = accesses::<R>(pattern, devices)
        .iter()
        .map(|access| access.addr)
        .collect();
    counted(&addrs, addrs.len(), &mut access);
    counted(&addrs, n, &mut access);
}

/// A registry on the heap, so that `.ci/stores.sh` can tell what it shares from what is the vCPU's.
fn registry<R: Bus>(devices: usize) -> Box<SharedVmDevices> {
    let registry = SharedVmDevices::default().with_unmapped(Unmapped::Float);
    (0..devices).for_each(|i| R::add(&registry, Nothing::new(i)));
    Box::new(registry)
}

/// Reads by `&self`.
fn reads<R: Bus>(pattern: Pattern, devices: usize, n: usize) {
    let registry = registry::<R>(devices);
    count::<R>(pattern, devices, n, |addr| {
        black_box(R::read(&registry, addr).unwrap_or(R::FLOATING));
    });
}

/// Reads by a vCPU's own handle.
fn handle_reads<R: Bus>(pattern: Pattern, devices: usize, n: usize) {
    let registry = registry::<R>(devices);
    let mut dispatcher = registry.dispatcher();
    count::<R>(pattern, devices, n, |addr| {
        black_box(R::read_by(&mut dispatcher, addr).unwrap_or(R::FLOATING));
    });
}

type Mmio = GuestPhysAddrRange;

/// Other accesses of one of eight MMIO devices.
fn hot<T>(n: usize, access: impl Fn(&SharedVmDevices, Addr<Mmio>) -> AxResult<T>) {
    let registry = registry::<Mmio>(8);
    count::<Mmio>(Pattern::Hot, 8, n, |addr| {
        black_box(access(&registry, addr).is_ok());
    });
}

/// Other accesses of one of eight MMIO devices by a vCPU's own handle.
fn handle_hot<T>(
    n: usize,
    access: impl Fn(&mut Dispatcher<&SharedVmDevices>, Addr<Mmio>) -> AxResult<T>,
) {
    let registry = registry::<Mmio>(8);
    let mut dispatcher = registry.dispatcher();
    count::<Mmio>(Pattern::Hot, 8, n, |addr| {
        black_box(access(&mut dispatcher, addr).is_ok());
    });
}

/// The virtual call alone.
fn floor(n: usize) {
    let device: Box<dyn BaseDeviceOps<Mmio>> = Box::new(Nothing::new(4));
    count::<Mmio>(Pattern::Hot, 8, n, |addr| {
        let read = black_box(&*device).handle_read(addr, WIDTH);
        black_box(read.unwrap_or(Mmio::FLOATING));
    });
}

/// Writes to a register through its guard.
fn guarded_writes(register: &str, n: usize) {
    let found = registers().into_iter().find(|r| r.name == register);
    let Register { addr, guarded, .. } = found.expect("there is such a register");
    count::<Mmio>(Pattern::Hot, 1, n, |_| {
        let written = guarded.handle_mmio_write(black_box(addr), WIDTH, 7);
        black_box(written.is_ok());
    });
}

/// Writes to a register, at this offset, of a device that an embedder's registry has behind a guard.
fn embedded_writes(devices: &AxVmDevices, offset: usize, n: usize) {
    count::<Mmio>(Pattern::Hot, 1, n, |_| {
        let written = devices.handle_mmio_write(black_box(at(offset)), WIDTH, 7);
        black_box(written.is_ok());
    });
}

/// A name, and what makes so many accesses.
type Scenario = (&'static str, fn(usize));

/// What is counted. But for the last few, no device of these has a guard, so that what guards cost
/// others is seen here: nothing.
const SCENARIOS: &[Scenario] = &[
    ("direct-call", floor),
    ("read-hot-8", |n| reads::<Mmio>(Pattern::Hot, 8, n)),
    ("read-random-64", |n| reads::<Mmio>(Pattern::Random, 64, n)),
    ("read-random-1024", |n| {
        reads::<Mmio>(Pattern::Random, 1024, n)
    }),
    ("read-miss-64", |n| reads::<Mmio>(Pattern::Miss, 64, n)),
    ("read-port-hot-8", |n| {
        reads::<PortRange>(Pattern::Hot, 8, n)
    }),
    ("read-sys-reg-hot-8", |n| {
        reads::<SysRegAddrRange>(Pattern::Hot, 8, n)
    }),
    ("write-hot-8", |n| {
        hot(n, |registry, addr| {
            registry.handle_mmio_write(addr, WIDTH, 1)
        })
    }),
    ("read-bytes-hot-8", |n| {
        hot(n, |registry, addr| {
            registry.read_bytes(addr, black_box(&mut [0; 4]))
        })
    }),
    ("write-bytes-hot-8", |n| {
        hot(n, |registry, addr| {
            registry.write_bytes(addr, black_box(&[0; 4]))
        })
    }),
    ("handle-read-hot-8", |n| {
        handle_reads::<Mmio>(Pattern::Hot, 8, n)
    }),
    ("handle-read-hot-4096", |n| {
        handle_reads::<Mmio>(Pattern::Hot, 4096, n)
    }),
    ("handle-read-random-8", |n| {
        handle_reads::<Mmio>(Pattern::Random, 8, n)
    }),
    ("handle-read-random-64", |n| {
        handle_reads::<Mmio>(Pattern::Random, 64, n)
    }),
    ("handle-read-random-1024", |n| {
        handle_reads::<Mmio>(Pattern::Random, 1024, n)
    }),
    ("handle-read-miss-64", |n| {
        handle_reads::<Mmio>(Pattern::Miss, 64, n)
    }),
    ("handle-read-port-hot-8", |n| {
        handle_reads::<PortRange>(Pattern::Hot, 8, n)
    }),
    ("handle-read-sys-reg-hot-8", |n| {
        handle_reads::<SysRegAddrRange>(Pattern::Hot, 8, n)
    }),
    ("handle-write-hot-8", |n| {
        handle_hot(n, |handle, addr| handle.handle_mmio_write(addr, WIDTH, 1))
    }),
    ("handle-read-bytes-hot-8", |n| {
        handle_hot(n, |handle, addr| {
            handle.read_bytes(addr, black_box(&mut [0; 4]))
        })
    }),
    ("handle-write-bytes-hot-8", |n| {
        handle_hot(n, |handle, addr| {
            handle.write_bytes(addr, black_box(&[0; 4]))
        })
    }),
    ("guarded-gicd-write", |n| {
        guarded_writes("GICD_ISENABLER1", n)
    }),
    ("guarded-gicr-write", |n| {
        guarded_writes("GICR_ISENABLER0", n)
    }),
    ("guarded-gicv2-write", |n| {
        guarded_writes("GICv2 GICD_ISENABLER0", n)
    }),
    ("guarded-plic-write", |n| {
        guarded_writes("PLIC enable bits", n)
    }),
    ("guarded-plic-completion", |n| {
        guarded_writes("PLIC claim/complete", n)
    }),
    ("embedded-gicd-write", |n| {
        embedded_writes(&distributor::<Unbound>(), 0x104, n)
    }),
    ("embedded-gicd-group-write", |n| {
        embedded_writes(&distributor::<Unbound>(), 0x84, n)
    }),
    ("embedded-gicr-write", |n| {
        embedded_writes(&redistributor::<Unbound>(), 0x1_0100, n)
    }),
];

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args[..] {
        [] => SCENARIOS.iter().for_each(|(name, _)| println!("{name}")),
        [scenario, n] => {
            let found = SCENARIOS.iter().find(|(name, _)| name == scenario);
            let (_, run) = found.with_context(|| format!("no scenario {scenario}"))?;
            log_nothing();
            run(n.parse()?);
        }
        _ => bail!("usage: count [SCENARIO N]"),
    }
    Ok(())
}
