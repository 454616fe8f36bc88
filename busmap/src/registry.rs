//! [`Registry`]: finds the device that owns an address, and calls its handler.

use alloc::{boxed::Box, vec::Vec};
use core::{fmt, panic::AssertUnwindSafe};

use crate::{
    bus::{Bus, BusId, Handlers, On},
    device::{DeviceId, DeviceIds},
    listener::Listening,
    miss::Miss,
    publish::SnapshotCell,
    span::Span,
    sync::Arc,
    table::Row,
    tables::{Registration, Tables},
};

/// The devices of one guest, on three buses.
///
/// Any number of vCPUs [`dispatch`](Self::dispatch) at once. They take no lock, and do not wait for each other or for a
/// change. A change copies the tables of all buses, edits the copy and publishes it, so every lookup sees all buses at
/// one instant.
///
/// # Handlers
///
/// A handler may use the registry: look up, change, dispatch, nested to any depth. It must hold a
/// [`Weak`](alloc::sync::Weak) to the registry, not an [`Arc`](alloc::sync::Arc): otherwise neither is ever freed. The
/// devices must bound a recursion from device to device themselves. A handler that unwinds leaves the registry
/// unchanged.
///
/// A dispatch never allocates, frees or runs a destructor itself, with one exception: with arc-swap's cell the first
/// dispatch of a thread may allocate a small node, which later threads use again.
///
/// A device without other owners is dropped by the thread that changes the registry, or by [`reclaim`](Self::reclaim).
/// If its destructor unwinds, so does the method; the change remains published.
///
/// # Memory ordering
///
/// Everything that happens before a change happens before every dispatch that sees the change. After a method that
/// changes the registry has returned, every vCPU that synchronises with the caller sees the change.
///
/// # Allocation failures
///
/// A change that finds no memory for data that grows with the number of devices returns
/// [`Refusal::NoMemory`](crate::Refusal::NoMemory) and changes nothing. The other allocations create a registry or a
/// [`Vcpu`](crate::Vcpu), or are objects of fixed size, at most about 1 KiB, for each added device, each publication
/// and each change of a group of 32 devices. If one of these fails, the program aborts, or the global allocator's error
/// handler runs.
///
/// # Examples
///
/// ```
/// use std::sync::Arc;
///
/// use busmap::{Device, Handlers, Miss, Mmio, Registry, Span};
///
/// /// Every handler is a function of the offset; a device has a name.
/// enum Reads {}
/// type Read = dyn Fn(u64) -> u64 + Send + Sync;
///
/// impl Handlers for Reads {
///     type Mmio = Read;
///     type Port = Read;
///     type SysReg = Read;
///     type Tag = &'static str;
/// }
///
/// let registry = Registry::<Reads>::new();
/// let rtc = Device::<Reads>::new("rtc").on::<Mmio>(Arc::new(|offset| offset + 1));
/// registry.add::<Mmio>(rtc, Span::new(0x1000, 0x1fff).unwrap())?;
///
/// // Four bytes at 0x1010.
/// let read = |at| {
///     registry.dispatch::<Mmio, _>(at, 3, |hit| hit.handler()(hit.offset(at)))
/// };
/// assert_eq!(read(0x1010), Ok(0x11));
/// assert_eq!(read(0x2000), Err(Miss::Unmapped));
/// # Ok::<(), busmap::Refused<Reads>>(())
/// ```
pub struct Registry<F: Handlers> {
    pub(crate) tables: SnapshotCell<Tables<F>>,
    pub(crate) ids: DeviceIds,
    /// The addresses that no device can own: see [`set_aside`](Self::set_aside).
    pub(crate) aside: Vec<(BusId, Span)>,
    /// The listener, if there is one. If it panics, no state in here is left half changed.
    pub(crate) listening: Option<AssertUnwindSafe<Box<Listening>>>,
}

impl<F: Handlers> Registry<F> {
    /// A registry without devices.
    pub fn new() -> Self {
        Self {
            tables: SnapshotCell::new(Tables::new()),
            ids: DeviceIds::new(),
            aside: Vec::new(),
            listening: None,
        }
    }

    /// Calls `enter` with the one device that owns all of `at ..= at + beyond` on bus `K`, and returns its result. For
    /// an access of `n` bytes `beyond` is `n - 1`: no access is empty.
    ///
    /// The device lives until `enter` has returned. No lock is held, and changes do not wait.
    ///
    /// # Errors
    ///
    /// [`Miss`], if there is no such device; `enter` is not called then.
    #[inline(always)]
    pub fn dispatch<K: Bus, T>(
        &self,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, F, K>) -> T,
    ) -> Result<T, Miss> {
        self.dispatch_with(at, beyond, |found| found.map(enter))
    }

    /// As [`dispatch`](Self::dispatch), but calls `answer` for a miss too, and so builds no [`Result`]: a few
    /// instructions less. During the call for a miss no tables are held.
    #[inline(always)]
    pub fn dispatch_with<K: Bus, T>(
        &self,
        at: u64,
        beyond: u64,
        answer: impl FnOnce(Result<Hit<'_, F, K>, Miss>) -> T,
    ) -> T {
        let tables = self.tables.load();
        let miss = match tables.of::<K>().search(at, beyond) {
            Ok(row) => {
                let tables = &*tables;
                return answer(Ok(Hit { row, tables }));
            }
            Err(_) if tables.withdrawal().is_some() => Miss::Withdrawn,
            Err(holder) => Miss::at(holder),
        };
        drop(tables);
        answer(Err(miss))
    }

    /// The id of the device that owns `at`, and its handler, of which the caller gets an `Arc`.
    pub fn find<K: Bus>(&self, at: u64) -> Option<(DeviceId, Arc<On<F, K>>)> {
        let tables = self.tables.load();
        let owner = tables.owner(tables.of::<K>().find(at)?);
        Some((owner.id, owner.device.handler::<K>()?.clone()))
    }

    /// Calls `visit` for every span on bus `K`, in the order of addresses, all at one instant.
    pub fn for_each<K: Bus>(&self, visit: impl FnMut(Hit<'_, F, K>)) {
        self.view(|view| view.spans().for_each(visit));
    }

    /// Calls `visit` with a view of all buses at one instant.
    ///
    /// The devices in the view live until `visit` returns, even if a change removes them from the registry. Changes do
    /// not wait.
    pub fn view<T>(&self, visit: impl FnOnce(View<'_, F>) -> T) -> T {
        let tables = self.tables.load();
        visit(View { tables: &tables })
    }

    /// Frees, on this thread, the replaced tables that no vCPU holds any more, and the devices that only these tables
    /// held. Every change does so too; this is for a registry that no longer changes.
    pub fn reclaim(&self) {
        self.tables.reclaim();
    }
}

impl<F: Handlers> Default for Registry<F> {
    fn default() -> Self {
        Self::new()
    }
}

impl<F: Handlers> fmt::Debug for Registry<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registry")
            .field("tables", &self.tables)
            .finish_non_exhaustive()
    }
}

/// The result of a lookup: a device, and its span that holds the access.
pub struct Hit<'t, F: Handlers, K: Bus> {
    pub(crate) row: &'t Row<On<F, K>>,
    pub(crate) tables: &'t Tables<F>,
}

impl<'t, F: Handlers, K: Bus> Hit<'t, F, K> {
    /// The handler to call.
    #[inline(always)]
    pub fn handler(self) -> &'t On<F, K> {
        self.row.handler()
    }

    /// The span.
    #[inline(always)]
    pub fn span(self) -> Span {
        self.row.span
    }

    /// The offset of `at`, an address of the span, from the span's first address.
    #[inline(always)]
    pub fn offset(self, at: u64) -> u64 {
        at.wrapping_sub(self.row.span.first())
    }

    /// A small number that no other registered device has: an index for the counts of a vCPU. It may be used again
    /// after the device is removed.
    #[inline(always)]
    pub fn index(self) -> usize {
        self.row.index
    }

    /// The registration of the device that owns the span.
    pub fn owner(self) -> &'t Registration<F> {
        self.tables.owner(self.row)
    }

    /// The device's id.
    pub fn id(self) -> DeviceId {
        self.owner().id
    }

    /// The tag beside the device's handlers.
    pub fn tag(self) -> &'t F::Tag {
        &self.owner().device.tag
    }
}

impl<F: Handlers, K: Bus> Clone for Hit<'_, F, K> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Handlers, K: Bus> Copy for Hit<'_, F, K> {}

impl<F: Handlers, K: Bus> fmt::Debug for Hit<'_, F, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hit")
            .field("id", &self.id())
            .field("span", &self.span())
            .finish_non_exhaustive()
    }
}

/// All buses of a registry at one instant.
pub struct View<'t, F: Handlers> {
    tables: &'t Tables<F>,
}

impl<'t, F: Handlers> View<'t, F> {
    /// Every span on bus `K`, in the order of addresses.
    pub fn spans<K: Bus>(self) -> impl Iterator<Item = Hit<'t, F, K>> {
        let Self { tables } = self;
        let rows = tables.of::<K>().rows().iter();
        rows.map(move |row| Hit { row, tables })
    }

    /// Every registered device, including those that own no addresses, in no particular order.
    pub fn devices(self) -> impl Iterator<Item = &'t Registration<F>> {
        self.tables.registrations()
    }

    /// A device, if it is registered.
    pub fn device(self, id: DeviceId) -> Option<&'t Registration<F>> {
        self.tables.registration(id)
    }

    /// Whether the devices are withdrawn by a front end that replaces them. The view is empty then.
    pub fn is_withdrawn(self) -> bool {
        self.tables.withdrawal().is_some()
    }
}

impl<F: Handlers> Clone for View<'_, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<F: Handlers> Copy for View<'_, F> {}

impl<F: Handlers> fmt::Debug for View<'_, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.tables.fmt(f)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        bus::{Mmio, Port, SysReg},
        device::Device,
        testing::{Named, named},
    };

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    /// A registry with `one` at two spans of ports and one of memory, and `two` at some ports.
    fn registry() -> (Registry<Named>, DeviceId, DeviceId) {
        let devices = Registry::new();
        let one = devices.add::<Port>(named("one"), span(0x20, 0x2f)).unwrap();
        let two = devices.add::<Port>(named("two"), span(0x10, 0x1f)).unwrap();
        devices.map::<Port>(one, span(0, 0xf)).unwrap();
        devices.map::<Mmio>(one, span(0x1000, 0x1fff)).unwrap();
        (devices, one, two)
    }

    #[test]
    fn an_access_reaches_the_owner_of_all_of_it() {
        let (devices, ..) = registry();
        let name =
            |at, beyond| devices.dispatch::<Port, _>(at, beyond, |hit| hit.handler().to_owned());
        assert_eq!(name(0x10, 0xf), Ok("two".into()));
        assert_eq!(name(0x2f, 0), Ok("one".into()));
        assert_eq!(name(0x30, 0), Err(Miss::Unmapped));
        // Although another device owns the next addresses.
        assert_eq!(name(0xf, 1), Err(Miss::Crosses(span(0, 0xf))));
        assert_eq!(name(0x1f, 1), Err(Miss::Crosses(span(0x10, 0x1f))));
        assert_eq!(name(0x20, u64::MAX), Err(Miss::Crosses(span(0x20, 0x2f))));
        assert_eq!(name(u64::MAX, u64::MAX), Err(Miss::Unmapped));
    }

    #[test]
    fn a_miss_calls_no_handler() {
        let (devices, ..) = registry();
        let enter = |_: Hit<'_, Named, Port>| panic!("it was called");
        assert_eq!(devices.dispatch(0x30, 0, enter), Err(Miss::Unmapped));
    }

    #[test]
    fn a_hit_has_the_id_tag_span_and_index_of_its_device() {
        let (devices, one, two) = registry();
        let hit = |at| {
            let found = devices.dispatch::<Port, _>(at, 0, |hit| {
                assert_eq!(
                    (hit.owner().id(), *hit.owner().device().tag()),
                    (hit.id(), *hit.tag())
                );
                (hit.id(), *hit.tag(), hit.span(), hit.index())
            });
            found.unwrap()
        };
        let (id, tag, at, index) = hit(3);
        assert_eq!((id, tag, at), (one, "one", span(0, 0xf)));
        assert_eq!(hit(0x20), (one, "one", span(0x20, 0x2f), index));
        let (id, tag, at, other) = hit(0x1f);
        assert_eq!((id, tag, at), (two, "two", span(0x10, 0x1f)));
        assert_ne!(index, other);
        // The index stays while the device is registered, even if others are added and removed.
        drop(devices.remove(one).unwrap());
        assert_eq!(hit(0x1f).3, other);
        let text = devices.dispatch::<Port, _>(0x10, 0, |hit| format!("{hit:?}"));
        assert!(text.unwrap().starts_with("Hit { id: "));
    }

    #[test]
    fn find_returns_the_id_and_a_handler_that_the_caller_owns() {
        let (devices, one, two) = registry();
        let (id, handler) = devices.find::<Port>(0x2f).unwrap();
        assert_eq!((id, &*handler), (one, "one"));
        assert_eq!(devices.find::<Port>(0x1f).map(|(id, _)| id), Some(two));
        assert_eq!(devices.find::<Mmio>(0x1fff).map(|(id, _)| id), Some(one));
        assert!(devices.find::<Port>(0x30).is_none());
        assert!(devices.find::<SysReg>(0).is_none());
        drop(devices);
        assert_eq!(Arc::strong_count(&handler), 1);
    }

    #[test]
    fn spans_come_by_address() {
        let (devices, one, two) = registry();
        let mut spans = Vec::new();
        devices.for_each::<Port>(|hit| spans.push((hit.id(), hit.span().first())));
        assert_eq!(spans, [(one, 0), (two, 0x10), (one, 0x20)]);
        spans.clear();
        devices.for_each::<Mmio>(|hit| spans.push((hit.id(), hit.span().first())));
        assert_eq!(spans, [(one, 0x1000)]);
        devices.for_each::<SysReg>(|_| panic!("nothing is there"));
    }

    #[test]
    fn a_view_stays_as_it_is() {
        let (devices, one, two) = registry();
        devices.view(|view| {
            let removed = devices.remove(one).unwrap();
            let spans: Vec<_> = view.spans::<Port>().map(|hit| *hit.tag()).collect();
            assert_eq!(spans, ["one", "two", "one"]);
            assert_eq!(view.spans::<Mmio>().count(), 1);
            assert!(view.device(one).is_some() && !view.is_withdrawn());
            assert!(!removed.is_quiescent(), "it is in view");
            drop(removed);
            assert!(devices.view(|view| view.device(one).is_none()));
        });
        devices.view(|view| {
            assert!(view.devices().map(|of| of.id()).eq([two]));
            assert_eq!(view.device(two).map(|of| *of.device().tag()), Some("two"));
        });
    }

    #[test]
    fn a_device_without_addresses_is_in_view() {
        let devices = Registry::<Named>::default();
        let add = |batch: &mut crate::Batch<'_, Named>| batch.add(Device::new("bare"));
        let (id, _) = devices.update(add).unwrap();
        devices.view(|view| {
            assert!(view.devices().map(|of| of.id()).eq([id]));
            assert_eq!(view.spans::<Port>().count(), 0);
        });
    }

    #[test]
    fn debug_shows_the_spans() {
        let (devices, ..) = registry();
        let text = format!("{devices:?}");
        assert!(text.contains("Span(0x1000..=0x1fff)"), "{text}");
        assert!(
            devices
                .view(|view| format!("{view:?}"))
                .starts_with("Tables")
        );
    }
}
