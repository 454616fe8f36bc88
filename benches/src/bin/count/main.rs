//! What `.ci/instructions.sh` counts the instructions of: `count SCENARIO N` makes `N` accesses.
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

/// Makes `n` accesses, which alone are counted.
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
    /// One of a few devices, over and over.
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

    /// A registry on the heap, so that `.ci/stores.sh` can tell what it shares from what is the vCPU's.
    fn registry<R: Bus>(&self) -> Box<SharedVmDevices> {
        let registry = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        let spans = self.layout.spans(self.devices);
        Nothing::all(&spans).for_each(|device| R::add(&registry, device));
        Box::new(registry)
    }

    /// Makes some accesses, so that all is set up, and then `n`.
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

/// All of them. But for the last, no device of these has a guard, so that what guards cost others is seen
/// here: nothing.
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
