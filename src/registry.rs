//! [`VmDevices`]: the registry, with the API of crate `axdevice` 0.4.10: lookups and accesses.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange, SysRegAddr, SysRegAddrRange},
};
use busmap::{DeviceId, Listener, Miss};

use crate::{
    access::Access,
    bus::{BusAddr, BusRange, DeviceBound, ThreadSafe, Unbound, sealed::Bus},
    bytes,
    iter::Iter,
    iter_mut::Replaceable,
    ivc::{Ivc, IvcChannels},
    lent::Lent,
    limited_log::LimitedLog,
    sync::Arc,
    unmapped::Unmapped,
};

/// The registry of devices without thread bounds, as in crate `axdevice` 0.4.10. It is neither `Send` nor `Sync`: an
/// embedder that shares it between threads guarantees that its devices allow that.
pub type AxVmDevices = VmDevices<Unbound>;

/// The registry of devices that are `Send + Sync`; the registry is `Send + Sync` too. Wrap a device that is not `Sync`
/// in [`Serialized`](crate::Serialized).
pub type SharedVmDevices = VmDevices<ThreadSafe>;

/// The devices of one VM, on three buses: MMIO, system registers and port I/O.
///
/// Any number of vCPUs dispatch at once (`handle_*`), without a lock and without waiting for each
/// other or for a change. A change copies the tables, edits the copy and publishes it.
///
/// # Accesses that a device gets
///
/// A device gets the accesses that lie *wholly* in one of its ranges: all `width` bytes from the address on. If no
/// device owns the address, or an access starts in a device and runs past its end, the [`Unmapped`] policy applies.
/// Values are masked to the access's width: both the value that a device returns and the value that it receives. On the
/// system register bus the width has no effect.
///
/// The registry reads a device's range once, when the device is added. No MMIO device can own the address `usize::MAX`,
/// because MMIO ranges are half-open.
///
/// # Handlers
///
/// A handler may use the registry: look up devices, add devices, dispatch, nested to any depth. Its device must hold a
/// [`Weak`](alloc::sync::Weak) to the registry: an [`Arc`](alloc::sync::Arc) would make a reference cycle, and neither
/// would ever be freed. The devices must bound the recursion between them. A handler that unwinds leaves the registry
/// unchanged.
///
/// The six `handle_*` methods never allocate, free or run a destructor themselves, with two exceptions. The first
/// dispatch of a thread may allocate a small node, which later threads reuse. The first miss after `iter_mut_*` makes
/// new tables.
///
/// A device without other owners is dropped by the thread that changes the registry, or by [`reclaim`](Self::reclaim).
/// If its destructor unwinds, the call unwinds too; the change remains published.
///
/// # Memory ordering
///
/// Everything that happens before a change happens before every dispatch that sees the change. After a method that
/// changes the registry has returned, every vCPU that synchronises with the caller sees the change.
///
/// # Allocation failures
///
/// A change needs memory in proportion to the number of devices: for the tables, the record of an
/// [`update`](Self::update) and the list of removed devices. If one of these allocations fails, it returns
/// [`Refusal::NoMemory`](crate::Refusal::NoMemory) and leaves everything unchanged. If one of the following fails, the
/// program aborts, or the global allocator's error handler runs:
///
/// - objects of fixed size, 600 bytes at most: two for each added device, two for each publication, and one for each
///   group of 32 devices in which something changes;
/// - [`Dispatcher::new`](crate::Dispatcher::new), and the functions that make a registry;
/// - the lists that `iter_*`, `iter_mut_*` and [`snapshot`](Self::snapshot) make, and the list of devices that `iter_*`
///   has lent.
pub struct VmDevices<B: DeviceBound> {
    pub(crate) devices: Replaceable<B>,
    lent: Lent<B>,
    unmapped: Unmapped,
    misses: LimitedLog,
    pub(crate) refusals: LimitedLog,
    pub(crate) ivc: Option<Ivc>,
}

impl<B: DeviceBound> VmDevices<B> {
    /// Sets the policy for misses.
    #[must_use]
    pub fn with_unmapped(self, unmapped: Unmapped) -> Self {
        Self { unmapped, ..self }
    }

    /// Sets the [`Listener`], in place of an earlier one. From now on the registry calls it for each change, before and
    /// after the change is published, and it may refuse the change. With it, doorbells or memory slots can follow a
    /// device's ranges. A [builder](Self::builder) sets the listener from the start.
    ///
    /// With a listener, changes are made one at a time and wait for each other. A change that the listener itself makes
    /// is refused with [`Refusal::Reentrant`](crate::Refusal::Reentrant). A dispatch does not wait, except for the
    /// first use after `iter_mut_*`, which is a change.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::{Arc, Mutex};
    ///
    /// use axdevice::{
    ///     AccessWidth, AxResult, BaseDeviceOps, Difference, EmulatedDeviceType, Listener, Port, PortRange,
    ///     Refusal, SharedVmDevices, Veto,
    /// };
    ///
    /// /// The addresses of the doorbells.
    /// #[derive(Default)]
    /// struct Doorbell(Mutex<Vec<u64>>);
    ///
    /// impl Listener for Doorbell {
    ///     fn before(&self, difference: &Difference) -> Result<(), Veto> {
    ///         for new in difference.mapped() {
    ///             // … `register_ioevent` of KVM; its error may become a `Veto`
    ///             self.0.lock().unwrap().push(new.span.first());
    ///         }
    ///         Ok(())
    ///     }
    ///
    ///     fn after(&self, difference: &Difference) {
    ///         for old in difference.unmapped() {
    ///             // … `unregister_ioevent`
    ///             self.0.lock().unwrap().retain(|at| *at != old.span.first());
    ///         }
    ///     }
    /// }
    ///
    /// # struct Device;
    /// # impl BaseDeviceOps<PortRange> for Device {
    /// #     fn emu_type(&self) -> EmulatedDeviceType { EmulatedDeviceType::Dummy }
    /// #     fn address_range(&self) -> PortRange { PortRange::new(Port(0), Port(7)) }
    /// #     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> { Ok(0) }
    /// #     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult { Ok(()) }
    /// # }
    /// let doorbell = Arc::new(Doorbell::default());
    /// let devices = SharedVmDevices::default().with_listener(doorbell.clone());
    /// let id = devices.add_port_dev(Arc::new(Device))?;
    /// devices.move_to(id, PortRange::new(Port(0x10), Port(0x17)))?;
    /// assert_eq!(*doorbell.0.lock().unwrap(), [0x10]);
    /// # Ok::<(), Refusal>(())
    /// ```
    #[must_use]
    pub fn with_listener(self, listener: Arc<dyn Listener>) -> Self {
        Self {
            devices: self.devices.with_listener(listener),
            ..self
        }
    }

    pub(crate) fn from_parts(registry: busmap::Registry<B::Handlers>, ivc: Option<Ivc>) -> Self {
        Self {
            devices: Replaceable::new(registry),
            lent: Lent::new(),
            unmapped: Unmapped::default(),
            misses: LimitedLog::new("emu_device not found"),
            refusals: LimitedLog::new("device refused"),
            ivc,
        }
    }

    /// The [`busmap`] registry inside. Its devices may be withdrawn.
    #[inline(always)]
    pub(crate) fn core(&self) -> &busmap::Registry<B::Handlers> {
        self.devices.as_is()
    }
}

impl<B: DeviceBound> Default for VmDevices<B> {
    /// A registry without devices.
    fn default() -> Self {
        Self::from_parts(busmap::Registry::new(), None)
    }
}

/// Lookups.
///
/// These return the device as it was added, without the lock or guard through which a dispatch calls some built-in
/// devices. The caller owns the returned `Arc`, which keeps the device alive.
impl<B: DeviceBound> VmDevices<B> {
    /// The device that owns `ipa`.
    pub fn find_mmio_dev(&self, ipa: GuestPhysAddr) -> Option<Arc<B::Dev<GuestPhysAddrRange>>> {
        self.find(ipa)
    }

    /// The device that owns `sys_reg_addr`.
    pub fn find_sys_reg_dev(
        &self,
        sys_reg_addr: SysRegAddr,
    ) -> Option<Arc<B::Dev<SysRegAddrRange>>> {
        self.find(sys_reg_addr)
    }

    /// The device that owns `port`.
    pub fn find_port_dev(&self, port: Port) -> Option<Arc<B::Dev<PortRange>>> {
        self.find(port)
    }

    /// Frees, on this thread, the replaced tables that no vCPU holds any more, and the devices that only these tables
    /// held. Every change does the same; call this on a registry that no longer changes.
    pub fn reclaim(&self) {
        self.core().reclaim();
    }

    fn find<A: BusAddr>(&self, addr: A) -> Option<Arc<B::Dev<A::Range>>> {
        let at = A::Range::number(addr);
        let find = |registry: &busmap::Registry<B::Handlers>| {
            registry.dispatch::<<A::Range as Bus>::Bus, _>(at, 0, |hit| {
                A::Range::of(&hit.tag().device).cloned()
            })
        };
        match find(self.core()) {
            Err(Miss::Withdrawn) => find(self.devices.restored().ok()?).ok()?,
            found => found.ok()?,
        }
    }
}

/// Iterating over devices, in the order of their registration.
///
/// An iterator returns the devices of one instant; devices that are added later do not appear.
///
/// The references live as long as the registry is borrowed, even if a device is removed earlier. Therefore the registry
/// keeps one [`Arc`](alloc::sync::Arc) of each device that an iterator has returned (several if threads iterate at
/// once). It keeps them until the next `iter_mut_*`, or until it is dropped. A device that was lent in this way is not
/// freed when its removal is complete. Devices that are only counted are not lent, and
/// [`for_each_mmio_dev`](Self::for_each_mmio_dev) and the similar methods lend none.
impl<B: DeviceBound> VmDevices<B> {
    /// Iterates over the MMIO devices.
    pub fn iter_mmio_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<GuestPhysAddrRange>>> {
        self.iter::<GuestPhysAddrRange>()
    }

    /// Iterates over the system register devices.
    pub fn iter_sys_reg_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<SysRegAddrRange>>> {
        self.iter::<SysRegAddrRange>()
    }

    /// Iterates over the port I/O devices.
    pub fn iter_port_dev(&self) -> impl Iterator<Item = &Arc<B::Dev<PortRange>>> {
        self.iter::<PortRange>()
    }

    fn iter<R: BusRange>(&self) -> Iter<'_, B, R> {
        self.devices
            .visible()
            .view(|view| Iter::new(view, &self.lent))
    }
}

/// Visiting the devices of one instant, by address.
///
/// A visit keeps its devices alive until it ends, and no longer. During a visit the registry may be used; no method
/// waits for the visit. A device that owns several ranges is visited once for each, a device without a range not at
/// all.
impl<B: DeviceBound> VmDevices<B> {
    /// Visits the MMIO devices: id, range (half-open), device.
    pub fn for_each_mmio_dev(
        &self,
        visit: impl FnMut(DeviceId, GuestPhysAddrRange, &Arc<B::Dev<GuestPhysAddrRange>>),
    ) {
        self.for_each(visit);
    }

    /// Visits the system register devices: id, range (inclusive), device.
    pub fn for_each_sys_reg_dev(
        &self,
        visit: impl FnMut(DeviceId, SysRegAddrRange, &Arc<B::Dev<SysRegAddrRange>>),
    ) {
        self.for_each(visit);
    }

    /// Visits the port I/O devices: id, range (inclusive), device.
    pub fn for_each_port_dev(
        &self,
        visit: impl FnMut(DeviceId, PortRange, &Arc<B::Dev<PortRange>>),
    ) {
        self.for_each(visit);
    }

    fn for_each<R: BusRange>(&self, mut visit: impl FnMut(DeviceId, R, &Arc<B::Dev<R>>)) {
        self.devices.visible().for_each::<R::Bus>(|hit| {
            if let Some(device) = R::of(&hit.tag().device) {
                visit(hit.id(), R::from_span(hit.span()), device);
            }
        });
    }
}

/// Replacing devices in place, for compatibility with 0.4.10.
///
/// The items outlive the iterator, so the registry cannot detect when the last item was changed. It therefore publishes
/// empty tables. The first use afterwards (a lookup, a change, or a dispatch, which misses in these tables) reads the
/// range of each new device and publishes tables of the result. If the ranges conflict, it publishes the devices that
/// were registered before the first `iter_mut_*` since the last use, and logs the reason at `error!`. A new device must
/// not use this registry in its `address_range`, because that would start the same procedure again.
///
/// The registry therefore holds the old and the new devices until the next `iter_mut_*` after that use, or until it is
/// dropped. [`Arc::get_mut`] on an item returns `None`: replace the item.
///
/// With a [listener](Self::with_listener), the first use is a change: the listener gets the difference and may refuse
/// it, which also restores the earlier devices. If no range has changed, the listener is not called, even if devices
/// were replaced. In `before`, the listener's own lookups find no device, and its own accesses reach none.
///
/// An item keeps its [`DeviceId`], and its ranges too if its device stays. A new device in an item gets the one range
/// that it returns. If the item had no range, the new device's range is not read, and it gets none. A device that moves
/// to another item keeps the lock that a dispatch to it takes.
impl<B: DeviceBound> VmDevices<B> {
    /// Iterates over the MMIO devices, to replace them.
    pub fn iter_mut_mmio_dev(
        &mut self,
    ) -> impl Iterator<Item = &mut Arc<B::Dev<GuestPhysAddrRange>>> {
        let lent = &mut self.lent;
        self.devices
            .iter_mut::<GuestPhysAddrRange>(|| *lent = Lent::new())
    }

    /// Iterates over the system register devices, to replace them.
    pub fn iter_mut_sys_reg_dev(
        &mut self,
    ) -> impl Iterator<Item = &mut Arc<B::Dev<SysRegAddrRange>>> {
        let lent = &mut self.lent;
        self.devices
            .iter_mut::<SysRegAddrRange>(|| *lent = Lent::new())
    }

    /// Iterates over the port I/O devices, to replace them.
    pub fn iter_mut_port_dev(&mut self) -> impl Iterator<Item = &mut Arc<B::Dev<PortRange>>> {
        let lent = &mut self.lent;
        self.devices.iter_mut::<PortRange>(|| *lent = Lent::new())
    }
}

/// Dispatch.
///
/// # Errors
///
/// - The error of the device.
/// - [`ResourceBusy`](ax_errno::AxError::ResourceBusy) from a serialized device, if its own handler makes the access.
/// - The error of the [`Unmapped`] policy, if no device answers.
/// - [`NoMemory`](ax_errno::AxError::NoMemory), if this is the first use after `iter_mut_*` and there is no memory for
///   the tables. [`ResourceBusy`](ax_errno::AxError::ResourceBusy), if the listener makes this access in `before`, while
///   the devices are put back.
///
/// # Panics
///
/// Under [`Unmapped::Panic`], the default, if no device owns the address. The message is that of 0.4.10, "emu_device
/// not found", followed by the bus, address and width of the access.
impl<B: DeviceBound> VmDevices<B> {
    /// Reads `width` bytes at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the low `width` bytes of `val` at `addr` of guest physical memory.
    #[inline]
    pub fn handle_mmio_write(
        &self,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_read(&self, addr: SysRegAddr, width: AccessWidth) -> AxResult<usize> {
        self.read(addr, width)
    }

    /// Writes the system register `addr`; `width` is passed on and otherwise ignored.
    #[inline]
    pub fn handle_sys_reg_write(
        &self,
        addr: SysRegAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        self.write(addr, width, val)
    }

    /// Reads `width` bytes from the ports from `port` on.
    #[inline]
    pub fn handle_port_read(&self, port: Port, width: AccessWidth) -> AxResult<usize> {
        self.read(port, width)
    }

    /// Writes the low `width` bytes of `val` to the ports from `port` on.
    #[inline]
    pub fn handle_port_write(&self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        self.write(port, width, val)
    }
}

/// Accesses in the format of KVM: bytes, little-endian.
///
/// `addr` is a [`GuestPhysAddr`], a [`Port`] or a [`SysRegAddr`].
///
/// `read_bytes` and `write_bytes` take one access of the guest, with the number of bytes in the exit:
///
/// | bytes | MMIO, ports | system registers |
/// |---|---|---|
/// | 1, 2, 4, 8 | one access, aligned or not | one access |
/// | 3, 5, 6, 7 | several: the access is cut at a page boundary, and each part is split into aligned powers of two, in ascending order (3 bytes at 0xffd: a byte, then two bytes at 0xffe) | one access |
/// | 3, 5, 6, 7, past the end of the bus | one access, which no device owns as a whole | |
/// | 0, more than 8 | [`InvalidInput`](AxError::InvalidInput), no access | the same |
///
/// `read_repeated` and `write_repeated` take an exit of string I/O (such as `rep insb`): any number of accesses of one
/// width to the same address. The width is `size` of `kvm_run.io`, and the buffer has `size * count` bytes:
///
/// | bytes | |
/// |---|---|
/// | a multiple of the width, including 0 | an access for each item, in order |
/// | others | [`InvalidInput`](AxError::InvalidInput), no access |
///
/// Each access is dispatched separately, even after one that fails. The first error is returned.
///
/// A read always writes the whole buffer. For an access that fails, or that no device answers, the bytes are those of
/// an undriven bus (ones; system registers: zeros).
///
/// Under [`Unmapped::Float`] the guest alone cannot cause an error of these methods: only a device can return one.
impl<B: DeviceBound> VmDevices<B> {
    /// Reads `data.len()` bytes at `addr` into `data`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless there are 1 to 8 bytes, and the errors of
    /// [`handle_mmio_read`](Self::handle_mmio_read).
    ///
    /// # Panics
    ///
    /// As [`handle_mmio_read`](Self::handle_mmio_read).
    pub fn read_bytes<A: BusAddr>(&self, addr: A, data: &mut [u8]) -> AxResult {
        match AccessWidth::try_from(data.len()) {
            Ok(width) => bytes::fill::<A::Range>(data, self.dispatch_read(addr, width)),
            Err(()) => bytes::read_pieces(addr, data, &mut |addr, width| {
                self.dispatch_read(addr, width)
            }),
        }
    }

    /// Writes the `data.len()` bytes of `data` at `addr`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless there are 1 to 8 bytes, and the errors of
    /// [`handle_mmio_write`](Self::handle_mmio_write).
    ///
    /// # Panics
    ///
    /// As [`handle_mmio_write`](Self::handle_mmio_write).
    pub fn write_bytes<A: BusAddr>(&self, addr: A, data: &[u8]) -> AxResult {
        match AccessWidth::try_from(data.len()) {
            Ok(width) => self.dispatch_write(addr, width, bytes::value_of(data)),
            Err(()) => bytes::write_pieces(addr, data, &mut |addr, width, val| {
                self.dispatch_write(addr, width, val)
            }),
        }
    }

    /// Handles string input: reads `width` at `addr` once for each item of `items`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless `items` has a multiple of `width` bytes, and the first error of
    /// [`handle_port_read`](Self::handle_port_read).
    ///
    /// # Panics
    ///
    /// As [`handle_port_read`](Self::handle_port_read).
    pub fn read_repeated<A: BusAddr>(
        &self,
        addr: A,
        width: AccessWidth,
        items: &mut [u8],
    ) -> AxResult {
        bytes::read_repeated::<A::Range>(width, items, || self.dispatch_read(addr, width))
    }

    /// Handles string output: writes each item of `items`, of `width`, at `addr`.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless `items` has a multiple of `width` bytes, and the first error of
    /// [`handle_port_write`](Self::handle_port_write).
    ///
    /// # Panics
    ///
    /// As [`handle_port_write`](Self::handle_port_write).
    pub fn write_repeated<A: BusAddr>(
        &self,
        addr: A,
        width: AccessWidth,
        items: &[u8],
    ) -> AxResult {
        bytes::write_repeated(width, items, |val| self.dispatch_write(addr, width, val))
    }
}

impl<B: DeviceBound> VmDevices<B> {
    /// Reads the part of the value that the access carries.
    #[inline]
    fn read<A: BusAddr>(&self, addr: A, width: AccessWidth) -> AxResult<usize> {
        let value = self.dispatch_read(addr, width)?;
        Ok(A::Range::carried(value, width))
    }

    /// Writes the part of the value that the access carries.
    #[inline(always)]
    fn write<A: BusAddr>(&self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        self.dispatch_write(addr, width, A::Range::carried(val, width))
    }

    /// Forwards a read to the owner of `addr`. The value may be wider than the access.
    #[inline]
    fn dispatch_read<A: BusAddr>(&self, addr: A, width: AccessWidth) -> AxResult<usize> {
        let access = Access::<A::Range>::read(addr, width);
        self.core()
            .dispatch_with(access.at(), access.beyond(), move |found| match found {
                Ok(hit) => Access::<A::Range>::read(addr, width).read_from::<B>(hit),
                Err(miss) if self.floats_unlogged(miss) => Ok(A::Range::floating(width)),
                Err(miss) => self.read_missed(addr, width, miss),
            })
    }

    #[inline(never)]
    fn read_missed<A: BusAddr>(&self, addr: A, width: AccessWidth, miss: Miss) -> AxResult<usize> {
        if matches!(miss, Miss::Withdrawn) {
            return self.read_restored(addr, width);
        }
        self.missed(Access::<A::Range>::read(addr, width), miss)?;
        Ok(A::Range::floating(width))
    }

    #[cold]
    #[inline(never)]
    fn read_restored<A: BusAddr>(&self, addr: A, width: AccessWidth) -> AxResult<usize> {
        self.restore_for(Access::<A::Range>::read(addr, width))?;
        self.dispatch_read(addr, width)
    }

    /// Forwards a write to the owner of `addr`. The value is no wider than the access.
    #[inline(always)]
    fn dispatch_write<A: BusAddr>(&self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        let access = Access::<A::Range>::write(addr, width);
        self.core()
            .dispatch_with(access.at(), access.beyond(), move |found| match found {
                Ok(hit) => Access::<A::Range>::write(addr, width).write_to::<B>(hit, val),
                Err(miss) if self.floats_unlogged(miss) => Ok(()),
                Err(miss) => self.write_missed(addr, width, val, miss),
            })
    }

    #[inline(never)]
    fn write_missed<A: BusAddr>(
        &self,
        addr: A,
        width: AccessWidth,
        val: usize,
        miss: Miss,
    ) -> AxResult {
        if matches!(miss, Miss::Withdrawn) {
            return self.write_restored(addr, width, val);
        }
        self.missed(Access::<A::Range>::write(addr, width), miss)
    }

    #[cold]
    #[inline(never)]
    fn write_restored<A: BusAddr>(&self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        self.restore_for(Access::<A::Range>::write(addr, width))?;
        self.dispatch_write(addr, width, val)
    }

    /// Puts back withdrawn devices, because of which the access was a miss. The caller then makes the access again.
    pub(crate) fn restore_for<R: BusRange>(&self, access: Access<R>) -> AxResult {
        let restored = self.devices.restored();
        restored.map_or_else(
            |refusal| Err(access.undecided(refusal, &self.misses)),
            |_| Ok(()),
        )
    }

    /// Whether the miss is certain, and its only effect is that the access floats.
    #[inline(always)]
    pub(crate) fn floats_unlogged(&self, miss: Miss) -> bool {
        let is_certain = !matches!(miss, Miss::Withdrawn);
        is_certain && matches!(self.unmapped, Unmapped::Float) && !LimitedLog::is_enabled()
    }

    /// Applies the policy to an access that no device answers. `Ok`: the access floats.
    #[inline]
    pub(crate) fn missed<R: BusRange>(&self, access: Access<R>, miss: Miss) -> AxResult {
        access.unanswered(miss, self.unmapped, &self.misses)
    }
}

/// Inter-VM-communication (IVC) channels: parts of the one range of guest physical memory that the configuration sets
/// aside for them. No MMIO device owns any of that range, and [`snapshot`](Self::snapshot) lists it.
///
/// # Errors
///
/// [`InvalidInput`](ax_errno::AxError::InvalidInput) if there is no such range, or `size` is zero
/// or not a multiple of 4 KiB. An error changes nothing.
impl<B: DeviceBound> VmDevices<B> {
    /// Allocates `size` bytes, a multiple of 4 KiB, in the smallest free piece that fits; of pieces of equal size, in
    /// the lowest.
    ///
    /// # Errors
    ///
    /// [`NoMemory`](ax_errno::AxError::NoMemory) if no free piece is large enough, or an error above.
    pub fn alloc_ivc_channel(&self, size: usize) -> AxResult<GuestPhysAddr> {
        self.ivc()?.alloc(size)
    }

    /// Releases the `size` bytes from `addr` on: a channel, several adjacent ones, or part of one.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if not all of these bytes are allocated, or an error above.
    pub fn release_ivc_channel(&self, addr: GuestPhysAddr, size: usize) -> AxResult {
        self.ivc()?.release(addr, size)
    }

    fn ivc(&self) -> AxResult<&IvcChannels> {
        let ivc = self.ivc.as_ref().ok_or(AxError::InvalidInput)?;
        Ok(&ivc.channels)
    }
}

impl<B: DeviceBound> fmt::Debug for VmDevices<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VmDevices")
            .field("registry", self.core())
            .field("unmapped", &self.unmapped)
            .field("ivc", &self.ivc)
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::{
        GuestPhysAddr,
        device::{Port, SysRegAddr},
    };

    use busmap::Span;

    use super::*;
    use crate::testing::Echo;

    /// On each bus a device at 0x10 ..= 0x1f that reads as the address; misses are errors.
    fn devices() -> AxVmDevices {
        let devices = AxVmDevices::default().with_unmapped(Unmapped::Error);
        let span = Span::new(0x10, 0x1f).unwrap();
        devices.add_mmio_dev(Echo::shared(span)).unwrap();
        devices.add_sys_reg_dev(Echo::shared(span)).unwrap();
        devices.add_port_dev(Echo::shared(span)).unwrap();
        devices
    }

    #[test]
    fn an_access_reaches_the_owner_of_all_of_it() {
        let devices = devices();
        let mmio = |addr: usize, width| devices.read(GuestPhysAddr::from(addr), width);
        assert_eq!(mmio(0x18, AccessWidth::Qword), Ok(0x18));
        assert_eq!(mmio(0x19, AccessWidth::Qword), Err(AxError::NotFound));
        assert_eq!(mmio(0x1f, AccessWidth::Byte), Ok(0x1f));
        assert_eq!(mmio(0x20, AccessWidth::Byte), Err(AxError::NotFound));
        assert_eq!(mmio(0xf, AccessWidth::Word), Err(AxError::NotFound));
        assert_eq!(devices.read(Port(0x1e), AccessWidth::Word), Ok(0x1e));
        assert_eq!(
            devices.read(Port(0x1e), AccessWidth::Dword),
            Err(AxError::NotFound)
        );
        assert_eq!(devices.read(SysRegAddr(0x1f), AccessWidth::Qword), Ok(0x1f));
    }

    #[test]
    fn a_crossing_is_distinguished_from_a_miss() {
        let devices = devices().with_unmapped(Unmapped::Panic);
        let crossing = devices.write(Port(0x1f), AccessWidth::Word, 0);
        assert_eq!(crossing, Err(AxError::InvalidInput));
        let devices = devices.with_unmapped(Unmapped::Float);
        assert_eq!(devices.read(Port(0x1f), AccessWidth::Word), Ok(0xffff));
        assert_eq!(devices.read(SysRegAddr(0x20), AccessWidth::Qword), Ok(0));
        assert_eq!(
            devices.write(SysRegAddr(0x20), AccessWidth::Qword, 1),
            Ok(())
        );
    }

    #[test]
    #[should_panic(expected = "emu_device not found: read of port 0x20 with width Byte")]
    fn a_miss_panics_where_that_is_the_policy() {
        let _ = devices()
            .with_unmapped(Unmapped::Panic)
            .read(Port(0x20), AccessWidth::Byte);
    }
}
