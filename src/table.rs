//! [`Table`]: the devices of one bus, sorted by address, immutable once published.

use alloc::vec::Vec;
use core::{fmt, ptr::NonNull};

use crate::{
    device::DeviceId, error::Refusal, ledger::Loan, owners::Owners, span::Span, sync::Arc,
};

/// One registration of a device.
///
/// The [`Owners`] of the tables that list the device hold counts of the same `Arc<Registration>`, and
/// nothing else that lasts does: so the count tells whether a table still lists it.
pub(crate) struct Registration<D: ?Sized> {
    pub(crate) id: DeviceId,
    /// The name that the configuration gave.
    pub(crate) name: Option<Arc<str>>,
    /// What a dispatch calls: the device itself, or what guards it.
    pub(crate) handler: Arc<D>,
    /// The device as it was added: what `find_*` gives and `iter_*` lends.
    pub(crate) loan: Arc<Loan<D>>,
}

impl<D: ?Sized> Registration<D> {
    /// The device as it was added.
    pub(crate) fn device(&self) -> &Arc<D> {
        self.loan.device()
    }
}

/// A device and the span that it owns, outside of any table.
pub(crate) struct Entry<D: ?Sized> {
    pub(crate) span: Span,
    pub(crate) registration: Arc<Registration<D>>,
}

impl<D: ?Sized> Entry<D> {
    pub(crate) fn new(span: Span, id: DeviceId, name: Option<Arc<str>>, mount: Mount<D>) -> Self {
        Self {
            span,
            registration: Arc::new(Registration {
                id,
                name,
                handler: mount.handler,
                loan: Loan::new(mount.device),
            }),
        }
    }

    pub(crate) fn id(&self) -> DeviceId {
        self.registration.id
    }

    /// The device as it was added.
    pub(crate) fn device(&self) -> &Arc<D> {
        self.registration.device()
    }
}

impl<D: ?Sized> Clone for Entry<D> {
    fn clone(&self) -> Self {
        Self {
            span: self.span,
            registration: self.registration.clone(),
        }
    }
}

/// A device, and what a dispatch calls for it.
pub struct Mount<D: ?Sized> {
    pub(crate) device: Arc<D>,
    pub(crate) handler: Arc<D>,
}

impl<D: ?Sized> Mount<D> {
    /// A device that is called directly.
    pub(crate) fn bare(device: Arc<D>) -> Self {
        Self {
            handler: device.clone(),
            device,
        }
    }
}

impl<D: ?Sized> fmt::Debug for Mount<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

impl<D: ?Sized> Clone for Mount<D> {
    fn clone(&self) -> Self {
        Self {
            device: self.device.clone(),
            handler: self.handler.clone(),
        }
    }
}

/// A row of a [`Table`]: who owns a span of addresses, and all that a dispatch needs of it.
///
/// Without a count of its own, so that copying it is copying memory. Only ever in a table.
pub(crate) struct Row<D: ?Sized> {
    pub(crate) span: Span,
    /// What a dispatch calls.
    handler: NonNull<D>,
    /// Where among the owners the registration is.
    seat: usize,
}

// SAFETY: a row is used as the `Arc<D>` that it points into (Owned), by reference only.
unsafe impl<D: ?Sized> Send for Row<D> where Arc<D>: Send {}

// SAFETY: a row is used as the `Arc<D>` that it points into (Owned), by reference only.
unsafe impl<D: ?Sized> Sync for Row<D> where Arc<D>: Sync {}

impl<D: ?Sized> Row<D> {
    /// What a dispatch calls.
    #[inline]
    pub(crate) fn handler(&self) -> &D {
        // SAFETY: the registration has an `Arc` of it, which it never lends mutably; and the table
        // that this row is borrowed from has the registration (Owned).
        unsafe { self.handler.as_ref() }
    }

    /// The same row, for a table with the same owners.
    const fn copied(&self) -> Self {
        Self {
            span: self.span,
            handler: self.handler,
            seat: self.seat,
        }
    }
}

/// The devices of one bus, sorted by address.
///
/// Pure data: it knows of no other thread. Searching takes O(log n) steps over the spans' first
/// addresses, which lie side by side.
///
/// # Invariants
///
/// - *Sorted*: `firsts` ascends strictly, and `firsts[i] == rows[i].span.first()`.
/// - *Disjoint*: no two spans overlap.
/// - *Owned*: for every row the registration that its handler is of is at its seat in `owners`.
pub(crate) struct Table<D: ?Sized> {
    firsts: Vec<usize>,
    rows: Vec<Row<D>>,
    owners: Owners<D>,
}

impl<D: ?Sized> Table<D> {
    pub(crate) const fn new() -> Self {
        Self {
            firsts: Vec::new(),
            rows: Vec::new(),
            owners: Owners::new(),
        }
    }

    /// A copy with room for `more` devices.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self, more: usize) -> Result<Self, Refusal> {
        let mut firsts = reserved(self.firsts.len() + more)?;
        let mut rows = reserved(self.rows.len() + more)?;
        firsts.extend_from_slice(&self.firsts);
        rows.extend(self.rows.iter().map(Row::copied));
        // INVARIANT (all): the same rows in the same order, and the same owners at the same seats.
        let owners = self.owners.try_clone()?;
        Ok(Self {
            firsts,
            rows,
            owners,
        })
    }

    /// Adds an entry.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overlap`] with the lowest device that owns some of its span, or
    /// [`Refusal::NoMemory`]; the table is unchanged.
    pub(crate) fn insert(&mut self, entry: Entry<D>) -> Result<(), Refusal> {
        let Entry { span, registration } = entry;
        let at = self.place(span)?;
        reserve(&mut self.firsts, 1)?;
        reserve(&mut self.rows, 1)?;
        let handler = NonNull::from(&*registration.handler);
        // INVARIANT (Owned): the seat was vacant, and is this row's from now on.
        let seat = self.owners.seat(registration)?;
        let row = Row {
            span,
            handler,
            seat,
        };
        // INVARIANT (Sorted, Disjoint): everything below `at` starts at or below the new span's first
        // address and, not overlapping it, ends below it; everything from `at` on starts above its
        // last.
        self.firsts.insert(at, span.first());
        self.rows.insert(at, row);
        Ok(())
    }

    /// Takes the entry of a device out.
    pub(crate) fn remove(&mut self, id: DeviceId) -> Option<Entry<D>> {
        let at = self.entries().position(|(_, owner)| owner.id == id)?;
        // INVARIANT (all): the rest stays in order, and the row goes before its owner.
        self.firsts.remove(at);
        let Row { span, seat, .. } = self.rows.remove(at);
        let registration = self.owners.vacate(seat)?;
        Some(Entry { span, registration })
    }

    /// Gives a device that is here another span.
    ///
    /// # Errors
    ///
    /// [`Refusal::Unknown`], or [`Refusal::Overlap`] with the lowest other device that owns some of
    /// the span. The device may then be missing: the table is of no more use.
    pub(crate) fn relocate(&mut self, id: DeviceId, span: Span) -> Result<(), Refusal> {
        let entry = self.remove(id).ok_or(Refusal::Unknown { id })?;
        self.insert(Entry { span, ..entry })
    }

    /// Where an entry with this span would go.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overlap`] with the lowest device that owns some of it.
    pub(crate) fn place(&self, span: Span) -> Result<usize, Refusal> {
        let at = self.rank(span.first());
        let neighbours = &self.rows[at.saturating_sub(1)..self.rows.len().min(at + 1)];
        match neighbours.iter().find(|owner| owner.span.overlaps(span)) {
            Some(owner) => Err(Refusal::Overlap {
                wanted: span,
                owner: self.registration(owner).id,
                owned: owner.span,
            }),
            None => Ok(at),
        }
    }

    /// The row whose span contains `addr`.
    #[inline]
    pub(crate) fn find(&self, addr: usize) -> Option<&Row<D>> {
        let row = self.rows.get(self.nearest(addr))?;
        row.span.contains(addr).then_some(row)
    }

    /// The index of the one row that can contain `addr`: the last that starts at or below it. If there
    /// is none, an index out of range.
    #[inline]
    pub(crate) fn nearest(&self, addr: usize) -> usize {
        self.rank(addr).wrapping_sub(1)
    }

    /// How many rows start at or below `addr`.
    #[inline]
    fn rank(&self, addr: usize) -> usize {
        self.firsts.partition_point(|&first| first <= addr)
    }

    /// The rows by address.
    pub(crate) fn rows(&self) -> &[Row<D>] {
        &self.rows
    }

    /// The device that owns `addr`.
    pub(crate) fn owner(&self, addr: usize) -> Option<&Arc<Registration<D>>> {
        self.find(addr).map(|row| self.registration(row))
    }

    /// A device, if it is here.
    pub(crate) fn of(&self, id: DeviceId) -> Option<&Arc<Registration<D>>> {
        self.entries()
            .map(|(_, owner)| owner)
            .find(|owner| owner.id == id)
    }

    /// The devices by address.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Span, &Arc<Registration<D>>)> {
        self.rows
            .iter()
            .map(|row| (row.span, self.registration(row)))
    }

    /// The devices in the order of their registration.
    pub(crate) fn by_registration(&self) -> Vec<(Span, &Arc<Registration<D>>)> {
        let mut entries: Vec<_> = self.entries().collect();
        entries.sort_unstable_by_key(|(_, owner)| owner.id);
        entries
    }

    /// The registration of one of the table's rows.
    fn registration(&self, row: &Row<D>) -> &Arc<Registration<D>> {
        self.owners.get(row.seat).expect("a row has an owner")
    }
}

impl<D: ?Sized> fmt::Debug for Table<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entries = self.entries().map(|(span, owner)| (span, owner.id));
        f.debug_map().entries(entries).finish()
    }
}

/// An empty vector with room for exactly `n`.
pub(crate) fn reserved<T>(n: usize) -> Result<Vec<T>, Refusal> {
    let mut vec = Vec::new();
    vec.try_reserve_exact(n).map_err(|_| Refusal::NoMemory)?;
    Ok(vec)
}

/// Makes room for `n` more.
pub(crate) fn reserve<T>(vec: &mut Vec<T>, n: usize) -> Result<(), Refusal> {
    vec.try_reserve(n).map_err(|_| Refusal::NoMemory)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn entry(first: usize, last: usize, id: u64) -> Entry<str> {
        let span = Span::new(first, last).unwrap();
        Entry::new(span, DeviceId::new(id), None, Mount::bare("device".into()))
    }

    fn table(spans: &[(usize, usize)]) -> Table<str> {
        let mut table = Table::new();
        for (&(first, last), id) in spans.iter().zip(1..) {
            table.insert(entry(first, last, id)).unwrap();
        }
        table
    }

    fn owner(table: &Table<str>, addr: usize) -> Option<u64> {
        let id = table.owner(addr)?.id;
        (1..100).find(|&n| DeviceId::new(n) == id)
    }

    #[test]
    fn an_empty_table_owns_nothing() {
        let table = table(&[]);
        assert!(table.find(0).is_none() && table.find(usize::MAX).is_none());
    }

    #[test]
    fn finds_the_owner_at_both_ends_and_nobody_between() {
        let table = table(&[(0x30, 0x3f), (0x10, 0x1f), (0x40, 0x40)]);
        let owners =
            [0xf, 0x10, 0x1f, 0x20, 0x2f, 0x30, 0x3f, 0x40, 0x41].map(|a| owner(&table, a));
        let (a, b, c) = (Some(1), Some(2), Some(3));
        assert_eq!(owners, [None, b, b, None, None, a, a, c, None]);
    }

    #[test]
    fn the_whole_bus_can_be_one_span() {
        let table = table(&[(0, usize::MAX)]);
        assert_eq!(owner(&table, 0), Some(1));
        assert_eq!(owner(&table, usize::MAX), Some(1));
    }

    #[test]
    fn refuses_every_kind_of_overlap_and_stays_as_it_was() {
        let mut table = table(&[(0x10, 0x1f), (0x30, 0x3f)]);
        let cases = [
            (0x10, 0x1f, 1),
            (0x0, 0x10, 1),
            (0x1f, 0x2f, 1),
            (0x14, 0x15, 1),
            (0x0, 0x100, 1),
            (0x20, 0x30, 2),
            (0x3f, 0x3f, 2),
        ];
        for (first, last, id) in cases {
            let Err(Refusal::Overlap { wanted, owner, .. }) = table.insert(entry(first, last, 9))
            else {
                panic!("{first:#x}..={last:#x} was not refused");
            };
            assert_eq!(wanted, Span::new(first, last).unwrap());
            assert_eq!(owner, DeviceId::new(id));
        }
        assert_eq!(table.entries().count(), 2);
        table.insert(entry(0x20, 0x2f, 3)).unwrap();
    }

    #[test]
    fn what_is_removed_leaves_its_neighbours() {
        let mut table = table(&[(0x10, 0x1f), (0x20, 0x2f), (0x30, 0x3f)]);
        let removed = table.remove(DeviceId::new(2)).unwrap();
        assert_eq!(removed.span, Span::new(0x20, 0x2f).unwrap());
        assert!(table.remove(DeviceId::new(2)).is_none());
        let owners = [0x1f, 0x20, 0x2f, 0x30].map(|addr| owner(&table, addr));
        assert_eq!(owners, [Some(1), None, None, Some(3)]);
        table.insert(entry(0x20, 0x20, 4)).unwrap();
        assert_eq!(owner(&table, 0x20), Some(4));
    }

    #[test]
    fn a_device_moves_over_itself_and_past_others_but_not_over_them() {
        let mut table = table(&[(0x10, 0x1f), (0x30, 0x3f)]);
        let relocate = |table: &mut Table<str>, id, first, last| {
            table.relocate(DeviceId::new(id), Span::new(first, last).unwrap())
        };
        assert_eq!(relocate(&mut table, 1, 0x18, 0x27), Ok(()));
        assert_eq!(relocate(&mut table, 1, 0x40, 0x40), Ok(()));
        let owners = [0x10, 0x27, 0x30, 0x40].map(|addr| owner(&table, addr));
        assert_eq!(owners, [None, None, Some(2), Some(1)]);
        let unknown = Refusal::Unknown {
            id: DeviceId::new(7),
        };
        assert_eq!(relocate(&mut table, 7, 0, 0), Err(unknown));
        let refused = relocate(&mut table, 1, 0x3f, 0x40);
        assert!(
            matches!(refused, Err(Refusal::Overlap { owner, .. }) if owner == DeviceId::new(2))
        );
    }

    #[test]
    fn a_copy_is_independent() {
        let one = table(&[(0x10, 0x1f)]);
        let mut two = one.try_clone(1).unwrap();
        two.insert(entry(0, 0xf, 2)).unwrap();
        assert_eq!(owner(&one, 0), None);
        assert_eq!(owner(&two, 0), Some(2));
        assert_eq!(Arc::strong_count(one.owner(0x10).unwrap()), 2);
    }

    #[test]
    fn remembers_the_order_of_registration() {
        let table = table(&[(0x30, 0x3f), (0x10, 0x1f), (0x20, 0x2f)]);
        let firsts: Vec<_> = table
            .by_registration()
            .iter()
            .map(|(span, _)| span.first())
            .collect();
        assert_eq!(firsts, [0x30, 0x10, 0x20]);
    }
}
