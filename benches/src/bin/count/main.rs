//! The program whose instructions `.ci/instructions.sh` counts. `count SCENARIO N` makes `N` accesses.
//! Without arguments it lists the scenarios.

mod guards;
mod reads;
mod widths;

use std::{env, hint::black_box};

use anyhow::{Context, Result, bail};
use axaddrspace::device::DeviceAddrRange;
use axdevice::{SharedVmDevices, Unmapped};
use benches::{Bus, Layout, Nothing, Pattern, accesses, log_nothing};

type Addr<R> = <R as DeviceAddrRange>::Addr;

/// Makes `n` accesses. Instructions are counted only while this function runs.
#[inline(never)]
fn counted<A: Copy>(addrs: &[A], n: usize, access: &mut impl FnMut(A)) {
    for addr in &addrs[..n] {
        access(black_box(*addr));
    }
}

/// The places of the devices, and the distribution of accesses over them.
#[derive(Clone, Copy)]
struct Setting {
    layout: Layout,
    pattern: Pattern,
    devices: usize,
}

impl Setting {
    /// Repeated accesses to one of a few devices.
    fn hot<R: Bus>() -> Self {
        Self::plain::<R>(Pattern::Hot, 8)
    }

    fn plain<R: Bus>(pattern: Pattern, devices: usize) -> Self {
        Self {
            layout: R::plain(),
            pattern,
            devices,
        }
    }

    /// A registry on the heap: `.ci/stores.sh` distinguishes stores to shared memory from stores to the vCPU's stack.
    fn registry<R: Bus>(&self) -> Box<SharedVmDevices> {
        let registry = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        let spans = self.layout.spans(self.devices);
        Nothing::all(&spans).for_each(|device| R::add(&registry, device));
        Box::new(registry)
    }

    /// Makes accesses to every address first, which sets everything up, and then `n` accesses.
    fn count<R: Bus>(&self, n: usize, mut access: impl FnMut(Addr<R>)) {
        let addrs: Vec<_> = accesses::<R>(&self.layout, self.pattern, self.devices)
            .iter()
            .map(|access| access.addr)
            .collect();
        counted(&addrs, addrs.len(), &mut access);
        counted(&addrs, n, &mut access);
    }
}

/// A scenario whose instructions are counted.
struct Scenario {
    name: String,
    /// Makes this number of accesses.
    run: Box<dyn Fn(usize)>,
}

impl Scenario {
    fn new(name: impl Into<String>, run: impl Fn(usize) + 'static) -> Self {
        Self {
            name: name.into(),
            run: Box::new(run),
        }
    }
}

/// All scenarios. Only the devices of the last group have guards. The others show that guards cost other
/// devices nothing.
fn scenarios() -> impl Iterator<Item = Scenario> {
    let reads = reads::scenarios().into_iter();
    reads.chain(widths::scenarios()).chain(guards::scenarios())
}

fn main() -> Result<()> {
    let args: Vec<_> = env::args().skip(1).collect();
    match &args[..] {
        [] => scenarios().for_each(|scenario| println!("{}", scenario.name)),
        [name, n] => {
            let found = scenarios().find(|scenario| scenario.name == *name);
            let scenario = found.with_context(|| format!("no scenario {name}"))?;
            log_nothing();
            (scenario.run)(n.parse()?);
        }
        _ => bail!("usage: count [SCENARIO N]"),
    }
    Ok(())
}
