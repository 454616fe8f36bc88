//! [`Dispatcher`]: a vCPU's own handle of the registry.

use core::{fmt, ops::Deref};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr,
    device::{AccessWidth, Port, SysRegAddr},
};
use axdevice_base::BaseDeviceOps;

use crate::{
    bus::{BusAddr, BusRange, Family, PerBus, sealed::Bus},
    cache::Cache,
    device::DeviceBound,
    dispatch::{Access, Direction, fill, value_of},
    registry::VmDevices,
    sync::mutant,
};

/// A vCPU's own handle of a registry: it keeps the tables from one dispatch to the next, and
/// remembers where in them it found the devices.
///
/// It dispatches as the registry's methods of the same names do, but for these differences:
///
/// - It takes `&mut self`: one vCPU uses it at a time.
/// - It is quicker. A dispatch looks with one load whether the tables were replaced, and if they were
///   not and a device answers, it writes no memory but the handle's own.
/// - It *holds* the tables until it notices that they were replaced: at the next dispatch, at
///   [`refresh`](Self::refresh), or at [`park`](Self::park). Until then the devices in them live,
///   even those that the registry no longer lists.
///
/// A vCPU that leaves its run loop, or sleeps for long, parks its handle. A vCPU that should let go
/// of a removed device is kicked out of its guest, and refreshes or parks.
///
/// `V` is anything that leads to the registry, always the same: a reference, or an `Arc`, beside which
/// the handle can live in a vCPU's struct.
///
/// # Memory ordering
///
/// As for the registry: when a method that changes the registry has returned, the dispatches of
/// every vCPU that learns of it by any synchronisation are by the new tables, with or without a
/// `refresh`. Before it returns, a vCPU that has seen the change by the registry itself may find
/// that its handle still goes by the old tables, but for one thing: no access is a miss by old ones.
///
/// # Examples
///
/// ```
/// # use std::sync::Arc;
/// # use axaddrspace::{GuestPhysAddr, device::AccessWidth};
/// use axdevice::{Dispatcher, SharedVmDevices, Unmapped};
///
/// struct Vcpu {
///     devices: Dispatcher<Arc<SharedVmDevices>>,
/// }
///
/// let devices = Arc::new(SharedVmDevices::default().with_unmapped(Unmapped::Float));
/// let mut vcpu = Vcpu { devices: Dispatcher::new(devices.clone()) };
/// let nobody = GuestPhysAddr::from(0x1000);
/// assert_eq!(vcpu.devices.handle_mmio_read(nobody, AccessWidth::Byte), Ok(0xff));
/// assert_eq!(vcpu.devices.counters().mmio.misses, 1);
/// ```
pub struct Dispatcher<V: Deref<Target: Registry>> {
    cache: Cache<<V::Target as Registry>::Bound>,
    counters: PerBus<CountersOf>,
    devices: V,
}

/// A registry, as the target of a pointer: [`VmDevices`].
pub trait Registry {
    /// What it demands of its devices.
    type Bound: DeviceBound;
}

impl<B: DeviceBound> Registry for VmDevices<B> {
    type Bound = B;
}

/// What a [`Dispatcher`] has done on one bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BusCounters {
    /// Accesses whose device was found where it was remembered.
    pub hits: u64,
    /// Accesses whose device was searched for.
    pub searches: u64,
    /// Accesses that no device answered.
    pub misses: u64,
    /// Accesses that found the tables replaced, or the handle parked.
    pub refreshes: u64,
}

/// The family of counters.
struct CountersOf;

impl Family for CountersOf {
    type Of<R: BusRange> = BusCounters;
}

/// What a [`Dispatcher`] has done since it was made, by bus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DispatcherCounters {
    /// In guest physical memory.
    pub mmio: BusCounters,
    /// In system registers.
    pub sys_reg: BusCounters,
    /// In ports.
    pub port: BusCounters,
}

impl<B: DeviceBound> VmDevices<B> {
    /// A vCPU's own handle of this registry. [`Dispatcher::new`] makes one beside an `Arc`.
    pub fn dispatcher(&self) -> Dispatcher<&Self> {
        Dispatcher::new(self)
    }
}

impl<B: DeviceBound, V: Deref<Target = VmDevices<B>>> Dispatcher<V> {
    /// A handle of the registry that `devices` leads to. Parked: it holds no tables yet.
    ///
    /// Allocates 97 KiB. From then on the handle allocates nothing of its own.
    pub fn new(devices: V) -> Self {
        Self {
            cache: Cache::of(&devices.tables),
            counters: PerBus {
                mmio: BusCounters::default(),
                sys_reg: BusCounters::default(),
                port: BusCounters::default(),
            },
            devices,
        }
    }

    /// The registry.
    pub fn registry(&self) -> &V {
        &self.devices
    }

    /// What the handle has done since it was made.
    pub fn counters(&self) -> DispatcherCounters {
        DispatcherCounters {
            mmio: self.counters.mmio,
            sys_reg: self.counters.sys_reg,
            port: self.counters.port,
        }
    }

    /// Lets go of tables that were replaced, and holds the current ones.
    pub fn refresh(&mut self) {
        if !self.cache.is_current(&self.devices.tables) {
            self.cache.renew(&self.devices.tables);
        }
    }

    /// Lets go of the tables. The next dispatch, or [`refresh`](Self::refresh), takes hold again.
    pub fn park(&mut self) {
        self.cache.park();
    }

    #[inline]
    fn read<A: BusAddr>(&mut self, addr: A, width: AccessWidth) -> AxResult<usize> {
        let access = Access::<A::Range>::read(addr, width);
        self.dispatch(access, A::Range::floating(width), move |device| {
            let value = device.handle_read(addr, width)?;
            Ok(A::Range::carried(value, width))
        })
    }

    #[inline]
    fn write<A: BusAddr>(&mut self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        let access = Access::<A::Range>::write(addr, width);
        let val = A::Range::carried(val, width);
        self.dispatch(access, (), move |device| {
            device.handle_write(addr, width, val)
        })
    }

    /// Has `enter` enter the device that owns the access; if there is none and the policy is so, the
    /// answer is `floating`.
    #[inline(always)]
    fn dispatch<R: BusRange, T>(
        &mut self,
        access: Access<R>,
        floating: T,
        enter: impl FnOnce(&B::Dev<R>) -> AxResult<T>,
    ) -> AxResult<T> {
        if let Some(row) = self.cache.recall::<R>(access.first())
            && let Some(handler) = access.handler_of(row)
        {
            R::of_mut(&mut self.counters).hits += 1;
            return enter(handler);
        }
        self.search_and_enter(access.addr, access.width, access.direction, floating, enter)
    }

    /// The same for an access whose device is not remembered.
    ///
    /// By the parts of the access, which are in registers, so that those whose device is remembered
    /// need no memory.
    #[cold]
    #[inline(never)]
    fn search_and_enter<R: BusRange, T>(
        &mut self,
        addr: R::Addr,
        width: AccessWidth,
        direction: Direction,
        floating: T,
        enter: impl FnOnce(&B::Dev<R>) -> AxResult<T>,
    ) -> AxResult<T> {
        let access = Access {
            addr,
            width,
            direction,
        };
        match self.search(access)? {
            Some(handler) => enter(handler),
            None => Ok(floating),
        }
    }

    /// What handles an access whose device is not remembered, or that it floats.
    fn search<R: BusRange>(&mut self, access: Access<R>) -> AxResult<Option<&B::Dev<R>>> {
        let registry: &VmDevices<B> = &self.devices;
        let mut refreshed = self.cache.is_outdated(&registry.tables);
        if refreshed {
            self.cache.renew(&registry.tables);
        }
        let mut found = self.cache.search(access);
        if found.is_none() && registry.is_ahead_of(&self.cache) {
            refreshed = true;
            self.cache.renew(&registry.tables);
            found = self.cache.search(access);
        }
        let counters = R::of_mut(&mut self.counters);
        counters.refreshes += u64::from(refreshed);
        let tables = self.cache.tables();
        let row = found.map(|index| &tables.of::<R>().rows()[index]);
        match row.and_then(|row| access.handler_of(row)) {
            Some(handler) => {
                counters.searches += 1;
                Ok(Some(handler))
            }
            None => {
                counters.misses += 1;
                registry.unanswered(access, tables).map(|()| None)
            }
        }
    }
}

impl<B: DeviceBound> VmDevices<B> {
    /// Whether there are newer tables than those that a handle holds, by which an access is a miss.
    /// Puts back the devices for which these stand in.
    ///
    /// What the version tells is not enough here: a vCPU may have seen a device by other ways before
    /// the version tells of it, and must not miss it then.
    fn is_ahead_of(&self, cache: &Cache<B>) -> bool {
        let current = || mutant("handle-misses") || cache.is_current(&self.tables);
        self.settled(cache.tables()) || !current()
    }
}

/// Dispatch: see the registry's methods of the same names for what they do, their errors and their
/// panics.
impl<B: DeviceBound, V: Deref<Target = VmDevices<B>>> Dispatcher<V> {
    /// Reads `width` bytes at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_read(&mut self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the low `width` bytes of `val` at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_write(
        &mut self,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_read(&mut self, addr: SysRegAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_write(
        &mut self,
        addr: SysRegAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads `width` bytes from the ports from `port` on.
    #[inline]
    pub fn handle_port_read(&mut self, port: Port, width: AccessWidth) -> AxResult<usize> {
        self.read(port, width)
    }

    /// Writes the low `width` bytes of `val` to the ports from `port` on.
    #[inline]
    pub fn handle_port_write(&mut self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        self.write(port, width, val)
    }

    /// Answers a read as KVM hands it over: see [`VmDevices::read_bytes`].
    pub fn read_bytes<A: BusAddr>(&mut self, addr: A, data: &mut [u8]) -> AxResult {
        fill::<A::Range>(data, |width| self.read(addr, width))
    }

    /// Takes a write as KVM hands it over: see [`VmDevices::write_bytes`].
    pub fn write_bytes<A: BusAddr>(&mut self, addr: A, data: &[u8]) -> AxResult {
        let (width, val) = value_of(data)?;
        self.write(addr, width, val)
    }
}

impl<V: Deref<Target: Registry>> fmt::Debug for Dispatcher<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatcher")
            .field("parked", &self.cache.is_parked())
            .field("mmio", &self.counters.mmio)
            .field("sys_reg", &self.counters.sys_reg)
            .field("port", &self.counters.port)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::PortRange;

    use super::*;
    use crate::{registry::SharedVmDevices, span::Span, sync::writes, testing::Probe};

    const WIDTH: AccessWidth = AccessWidth::Byte;

    /// Of what the registry shares. The handle's own memory has no atomics, and those of the hosted
    /// cell are arc-swap's: `.ci/stores.sh` traces every store on either.
    #[test]
    fn a_warm_dispatch_writes_nothing_shared() {
        let devices = SharedVmDevices::default();
        let span = Span::new(0, 7).unwrap();
        devices
            .add_port_dev(Probe::<PortRange>::shared(span))
            .unwrap();
        let mut vcpu = devices.dispatcher();
        let mut read = || assert_eq!(vcpu.handle_port_read(Port(3), WIDTH), Ok(3));
        let (cold, warm) = (writes(&mut read), writes(&mut read));
        assert_eq!(warm, 0);
        // Without the handle: a slot claimed and freed. So counting counts.
        let shared = writes(|| assert_eq!(devices.handle_port_read(Port(3), WIDTH), Ok(3)));
        let slots = cfg!(feature = "slot-cell");
        assert_eq!((cold > 0, shared), (slots, if slots { 2 } else { 0 }));
    }
}
