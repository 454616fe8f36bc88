//! [`Dispatcher`]: a vCPU's own handle of the registry.

use core::{fmt, ops::Deref};

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr,
    device::{AccessWidth, Port, SysRegAddr},
};
use busmap::{BusCounters, Miss, Profile, Vcpu};

use crate::{
    access::Access,
    bus::{BusAddr, DeviceBound, sealed::Bus as _},
    bytes,
    registry::VmDevices,
};

/// A vCPU's own handle of a registry: it keeps the tables from one dispatch to the next, and first tries the device
/// that it accesses most.
///
/// It dispatches as the registry's methods of the same names do, with these differences:
///
/// - It takes `&mut self`: one vCPU uses it at a time.
/// - It is faster. A dispatch checks with one load whether the tables were replaced. If not, and a device answers, the
///   dispatch writes only the handle's own memory.
/// - It *holds* the tables until it detects that they were replaced: at the next dispatch, at
///   [`refresh`](Self::refresh), or at [`park`](Self::park). Until then the devices in them live, even those that the
///   registry no longer lists.
///
/// A vCPU that leaves its run loop, or sleeps for long, should park its handle. To make a vCPU release a removed
/// device, kick it out of its guest, and let it refresh or park.
///
/// `V` always dereferences to the same registry. It is a reference, or an `Arc` for a handle in a vCPU's struct.
///
/// # Memory ordering
///
/// As for the registry: after a method that changes the registry has returned, every vCPU that synchronises with the
/// caller dispatches by the new tables, with or without a `refresh`. Before it returns, a vCPU that has seen the change,
/// through the registry itself or through another vCPU, sees it through its handle too.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use axdevice::{AccessWidth, Dispatcher, GuestPhysAddr, SharedVmDevices, Unmapped};
///
/// struct Vcpu {
///     devices: Dispatcher<Arc<SharedVmDevices>>,
/// }
///
/// let devices = Arc::new(SharedVmDevices::default().with_unmapped(Unmapped::Float));
/// let mut vcpu = Vcpu { devices: Dispatcher::new(devices.clone()) };
/// let unowned = GuestPhysAddr::from(0x1000);
/// assert_eq!(vcpu.devices.handle_mmio_read(unowned, AccessWidth::Byte), Ok(0xff));
/// assert_eq!(vcpu.devices.counters().mmio.misses, 1);
/// ```
///
/// The devices and addresses with the most traps, over all vCPUs:
///
/// ```
/// use axdevice::{AccessWidth, Port, Profile, SharedVmDevices, Unmapped};
///
/// let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
/// let mut vcpus = [devices.dispatcher(), devices.dispatcher()];
/// vcpus[1].handle_port_write(Port(0x80), AccessWidth::Byte, 7)?;
///
/// let mut profile = Profile::default();
/// vcpus.iter().for_each(|vcpu| profile.merge(&vcpu.profile()));
/// print!("{}", devices.profile_table(&profile));
/// # assert_eq!(profile.port.addresses[0].address, 0x80);
/// # Ok::<(), axdevice::AxError>(())
/// ```
pub struct Dispatcher<V: Deref<Target: Registry>> {
    vcpu: Vcpu<Core<V>>,
}

/// A registry, as the target of a pointer: [`VmDevices`].
pub trait Registry {
    /// The requirements on its devices.
    type Bound: DeviceBound;

    /// The [`busmap`] registry inside.
    #[doc(hidden)]
    fn core(&self) -> &busmap::Registry<<Self::Bound as DeviceBound>::Handlers>;
}

impl<B: DeviceBound> Registry for VmDevices<B> {
    type Bound = B;

    #[inline(always)]
    fn core(&self) -> &busmap::Registry<B::Handlers> {
        self.core()
    }
}

/// Dereferences to the [`busmap`] registry inside the target of `V`.
struct Core<V>(V);

impl<V: Deref<Target: Registry>> Deref for Core<V> {
    type Target = busmap::Registry<<<V::Target as Registry>::Bound as DeviceBound>::Handlers>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        self.0.core()
    }
}

/// Counts of a [`Dispatcher`] since it was made, by bus.
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
    /// Returns a vCPU's own handle of this registry. [`Dispatcher::new`] makes one from an `Arc`.
    pub fn dispatcher(&self) -> Dispatcher<&Self> {
        Dispatcher::new(self)
    }
}

impl<B: DeviceBound, V: Deref<Target = VmDevices<B>>> Dispatcher<V> {
    /// Returns a parked handle of the registry that `devices` dereferences to; it holds no tables yet.
    ///
    /// Allocates less than 4 KiB and, for its counts, 32 bytes for each registered device, in groups of 32 devices. A
    /// dispatch allocates nothing; [`refresh`](Self::refresh) and [`take_profile`](Self::take_profile) allocate room
    /// for devices that were added.
    pub fn new(devices: V) -> Self {
        Self {
            vcpu: Vcpu::new(Core(devices)),
        }
    }

    /// The registry.
    pub fn registry(&self) -> &V {
        &self.vcpu.registry().0
    }

    /// The counts since the handle was made.
    pub fn counters(&self) -> DispatcherCounters {
        DispatcherCounters {
            mmio: self.vcpu.counters::<busmap::Mmio>(),
            sys_reg: self.vcpu.counters::<busmap::SysReg>(),
            port: self.vcpu.counters::<busmap::Port>(),
        }
    }

    /// The accesses by device, and the most frequent missed addresses, since the handle was made or since
    /// [`take_profile`](Self::take_profile).
    ///
    /// [`VmDevices::profile_table`] prints it with the devices' names. Allocates the lists that it returns.
    pub fn profile(&self) -> Profile {
        self.vcpu.profile()
    }

    /// Returns the [`profile`](Self::profile) and starts an empty one. The [`counters`](Self::counters) are not reset.
    ///
    /// Makes room for devices that were added, as [`refresh`](Self::refresh) does.
    pub fn take_profile(&mut self) -> Profile {
        self.vcpu.take_profile()
    }

    /// Drops tables that were replaced, and holds the current ones.
    ///
    /// If devices were added since the handle was made, and there is memory, makes room for their counts: this
    /// allocates and frees the handle's own memory.
    pub fn refresh(&mut self) {
        self.vcpu.refresh();
    }

    /// Drops the tables. The next dispatch, or [`refresh`](Self::refresh), takes the current ones.
    pub fn park(&mut self) {
        self.vcpu.park();
    }

    /// Reads the part of the value that the access carries.
    #[inline(always)]
    fn read<A: BusAddr>(vcpu: &mut Vcpu<Core<V>>, addr: A, width: AccessWidth) -> AxResult<usize> {
        let value = Self::dispatch_read(vcpu, addr, width)?;
        Ok(A::Range::carried(value, width))
    }

    /// Writes the part of the value that the access carries.
    #[inline(always)]
    fn write<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        Self::dispatch_write(vcpu, addr, width, A::Range::carried(val, width))
    }

    /// Forwards a read to the owner of `addr`. The value may be wider than the access.
    #[inline(always)]
    fn dispatch_read<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
    ) -> AxResult<usize> {
        let access = Access::<A::Range>::read(addr, width);
        vcpu.dispatch_with(
            access.direction(),
            access.at(),
            access.beyond(),
            move |found| match found {
                Ok(hit) => Access::<A::Range>::read(addr, width).read_from::<B>(hit),
                Err((vcpu, miss)) if vcpu.registry().0.floats_unlogged(miss) => {
                    Ok(A::Range::floating(width))
                }
                Err((vcpu, miss)) => Self::read_missed(vcpu, addr, width, miss),
            },
        )
    }

    #[inline(never)]
    fn read_missed<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
        miss: Miss,
    ) -> AxResult<usize> {
        if matches!(miss, Miss::Withdrawn) {
            return Self::read_restored(vcpu, addr, width);
        }
        let devices = &vcpu.registry().0;
        devices.missed(Access::<A::Range>::read(addr, width), miss)?;
        Ok(A::Range::floating(width))
    }

    #[cold]
    #[inline(never)]
    fn read_restored<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
    ) -> AxResult<usize> {
        let devices = &vcpu.registry().0;
        devices.restore_for(Access::<A::Range>::read(addr, width))?;
        Self::dispatch_read(vcpu, addr, width)
    }

    /// Forwards a write to the owner of `addr`. The value is no wider than the access.
    #[inline]
    fn dispatch_write<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        let access = Access::<A::Range>::write(addr, width);
        vcpu.dispatch_with(
            access.direction(),
            access.at(),
            access.beyond(),
            move |found| match found {
                Ok(hit) => Access::<A::Range>::write(addr, width).write_to::<B>(hit, val),
                Err((vcpu, miss)) if vcpu.registry().0.floats_unlogged(miss) => Ok(()),
                Err((vcpu, miss)) => Self::write_missed(vcpu, addr, width, val, miss),
            },
        )
    }

    #[inline(never)]
    fn write_missed<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
        val: usize,
        miss: Miss,
    ) -> AxResult {
        if matches!(miss, Miss::Withdrawn) {
            return Self::write_restored(vcpu, addr, width, val);
        }
        let devices = &vcpu.registry().0;
        devices.missed(Access::<A::Range>::write(addr, width), miss)
    }

    #[cold]
    #[inline(never)]
    fn write_restored<A: BusAddr>(
        vcpu: &mut Vcpu<Core<V>>,
        addr: A,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        let devices = &vcpu.registry().0;
        devices.restore_for(Access::<A::Range>::write(addr, width))?;
        Self::dispatch_write(vcpu, addr, width, val)
    }
}

/// Dispatch: the registry's methods of the same names describe the effects, errors and panics.
impl<B: DeviceBound, V: Deref<Target = VmDevices<B>>> Dispatcher<V> {
    /// Reads `width` bytes at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_read(&mut self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        Self::read(&mut self.vcpu, addr, width)
    }

    /// Writes the low `width` bytes of `val` at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_write(
        &mut self,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        Self::write(&mut self.vcpu, addr, width, val)
    }

    /// Reads the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_read(&mut self, addr: SysRegAddr, width: AccessWidth) -> AxResult<usize> {
        Self::read(&mut self.vcpu, addr, width)
    }

    /// Writes the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_write(
        &mut self,
        addr: SysRegAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        Self::write(&mut self.vcpu, addr, width, val)
    }

    /// Reads `width` bytes from the ports from `port` on.
    #[inline]
    pub fn handle_port_read(&mut self, port: Port, width: AccessWidth) -> AxResult<usize> {
        Self::read(&mut self.vcpu, port, width)
    }

    /// Writes the low `width` bytes of `val` to the ports from `port` on.
    #[inline]
    pub fn handle_port_write(&mut self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        Self::write(&mut self.vcpu, port, width, val)
    }

    /// Reads `data.len()` bytes at `addr` into `data`: see [`VmDevices::read_bytes`].
    pub fn read_bytes<A: BusAddr>(&mut self, addr: A, data: &mut [u8]) -> AxResult {
        match AccessWidth::try_from(data.len()) {
            Ok(width) => {
                bytes::fill::<A::Range>(data, Self::dispatch_read(&mut self.vcpu, addr, width))
            }
            Err(()) => bytes::read_pieces(addr, data, &mut |addr, width| {
                Self::dispatch_read(&mut self.vcpu, addr, width)
            }),
        }
    }

    /// Writes the bytes of `data` at `addr`: see [`VmDevices::write_bytes`].
    pub fn write_bytes<A: BusAddr>(&mut self, addr: A, data: &[u8]) -> AxResult {
        match AccessWidth::try_from(data.len()) {
            Ok(width) => Self::dispatch_write(&mut self.vcpu, addr, width, bytes::value_of(data)),
            Err(()) => bytes::write_pieces(addr, data, &mut |addr, width, val| {
                Self::dispatch_write(&mut self.vcpu, addr, width, val)
            }),
        }
    }

    /// Handles string input: see [`VmDevices::read_repeated`].
    pub fn read_repeated<A: BusAddr>(
        &mut self,
        addr: A,
        width: AccessWidth,
        items: &mut [u8],
    ) -> AxResult {
        bytes::read_repeated::<A::Range>(width, items, || {
            Self::dispatch_read(&mut self.vcpu, addr, width)
        })
    }

    /// Handles string output: see [`VmDevices::write_repeated`].
    pub fn write_repeated<A: BusAddr>(
        &mut self,
        addr: A,
        width: AccessWidth,
        items: &[u8],
    ) -> AxResult {
        bytes::write_repeated(width, items, |val| {
            Self::dispatch_write(&mut self.vcpu, addr, width, val)
        })
    }
}

impl<V: Deref<Target: Registry>> fmt::Debug for Dispatcher<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Dispatcher").field(&self.vcpu).finish()
    }
}
