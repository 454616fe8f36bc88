//! [`Table`]: the owners of the addresses of one bus, sorted by address, immutable once published.

use alloc::vec::Vec;
use core::{fmt, ptr::NonNull};

use crate::{
    index::Index,
    refusal::Refusal,
    reserve::{reserve, reserved},
    span::Span,
    sync::Arc,
};

/// A row of a [`Table`]: a span of addresses, and the handler and index of its owner.
///
/// It has no count of the handler, so that copying it is copying memory. It exists only in a table.
pub(crate) struct Row<D: ?Sized> {
    pub(crate) span: Span,
    /// The handler that a dispatch calls.
    handler: NonNull<D>,
    /// The owner's index among the registrations.
    pub(crate) index: usize,
}

// SAFETY: a row is used as the `Arc<D>` that it points into (Owned), by reference only.
unsafe impl<D: ?Sized> Send for Row<D> where Arc<D>: Send {}

// SAFETY: a row is used as the `Arc<D>` that it points into (Owned), by reference only.
unsafe impl<D: ?Sized> Sync for Row<D> where Arc<D>: Sync {}

impl<D: ?Sized> Row<D> {
    /// A row for the device at `index`.
    pub(crate) fn new(span: Span, handler: &Arc<D>, index: usize) -> Self {
        Self {
            span,
            handler: NonNull::from(&**handler),
            index,
        }
    }

    /// The handler that a dispatch calls.
    #[inline]
    pub(crate) fn handler(&self) -> &D {
        // SAFETY: the registration has an `Arc` of it, which it never lends mutably; and the tables
        // that this row is borrowed from have the registration (Owned).
        unsafe { self.handler.as_ref() }
    }

    /// The same row, for tables with the same registrations.
    const fn copied(&self) -> Self {
        Self {
            span: self.span,
            handler: self.handler,
            index: self.index,
        }
    }
}

/// The rows of one bus, sorted by address.
///
/// Pure data. An [`Index`] of the spans' first addresses finds the one row that can own an
/// address: the nearest that does not start above it.
///
/// # Invariants
///
/// - *Sorted*: the rows ascend, and the index has the first address of each, at the same position.
/// - *Disjoint*: no two spans overlap.
/// - *Owned*: the registrations beside the table have, at the index of each row, one with an `Arc` of
///   the row's handler. [`Tables`](crate::tables::Tables) maintains this: it makes a row only of a registration
///   that is there, and removes the row at the latest with it.
pub(crate) struct Table<D: ?Sized> {
    rows: Vec<Row<D>>,
    index: Index,
}

impl<D: ?Sized> Table<D> {
    pub(crate) const fn new() -> Self {
        Self {
            rows: Vec::new(),
            index: Index::new(),
        }
    }

    /// A copy with room for `more` rows.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub(crate) fn try_clone(&self, more: usize) -> Result<Self, Refusal> {
        let mut rows = reserved(self.rows.len() + more)?;
        // INVARIANT (all): the same rows in the same order.
        rows.extend(self.rows.iter().map(Row::copied));
        let index = self.index.try_clone(more)?;
        Ok(Self { rows, index })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]. The table must not be used afterwards.
    ///
    /// An overlap is no error: returns the lowest row that the new one would overlap, and leaves the table unchanged.
    pub(crate) fn insert(&mut self, row: Row<D>) -> Result<Option<&Row<D>>, Refusal> {
        let at = self.index.rank(row.span.first());
        let mut neighbours = at.saturating_sub(1)..self.rows.len().min(at + 1);
        if let Some(i) = neighbours.find(|&i| self.rows[i].span.overlaps(row.span)) {
            return Ok(Some(&self.rows[i]));
        }
        reserve(&mut self.rows, 1)?;
        // INVARIANT (Sorted, Disjoint): every row below `at` starts at or below the new span's first address and,
        // not overlapping it, ends below it; every row from `at` on starts above its last.
        let first = row.span.first();
        self.rows.insert(at, row);
        self.index.insert(at, first, self.top())?;
        Ok(None)
    }

    /// Removes the row by which the device at `index` owns exactly `span`. Returns whether there was one.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]. The table must not be used afterwards.
    pub(crate) fn remove(&mut self, index: usize, span: Span) -> Result<bool, Refusal> {
        let at = self.index.nearest(span.first());
        let found = (self.rows.get(at)).is_some_and(|row| row.index == index && row.span == span);
        if found {
            self.remove_at(at)?;
        }
        Ok(found)
    }

    /// Removes all rows of the device at `index`. Returns whether there were any.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]. The table must not be used afterwards.
    pub(crate) fn remove_all(&mut self, index: usize) -> Result<bool, Refusal> {
        let before = self.rows.len();
        let mut at = 0;
        while let Some(next) = self.rows[at..].iter().position(|row| row.index == index) {
            at += next;
            self.remove_at(at)?;
        }
        Ok(self.rows.len() < before)
    }

    fn remove_at(&mut self, at: usize) -> Result<(), Refusal> {
        // INVARIANT (all): the rest stays in order.
        self.rows.remove(at);
        self.index.remove(at, self.top())
    }

    /// The highest address that a row owns; zero if there are no rows.
    fn top(&self) -> u64 {
        self.rows.last().map_or(0, |row| row.span.last())
    }

    /// The row whose span holds `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Row<D>> {
        self.search(addr, 0).ok()
    }

    /// The row whose span holds all of `addr ..= addr + beyond`.
    ///
    /// # Errors
    ///
    /// The row whose span holds `addr`, if there is one.
    #[inline(always)]
    pub(crate) fn search(&self, addr: u64, beyond: u64) -> Result<&Row<D>, Option<&Row<D>>> {
        let nearest = self.rows.get(self.index.nearest(addr)).ok_or(None)?;
        // It does not start above the address (Sorted).
        let left = nearest.span.last().checked_sub(addr).ok_or(None)?;
        if left >= beyond {
            Ok(nearest)
        } else {
            Err(Some(nearest))
        }
    }

    /// The rows by address.
    pub(crate) fn rows(&self) -> &[Row<D>] {
        &self.rows
    }
}

impl<D: ?Sized> fmt::Debug for Table<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows.iter().map(|row| (row.span, row.index));
        f.debug_map().entries(rows).finish()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    /// Never freed: these tables have no registrations.
    static HANDLER: LazyLock<Arc<str>> = LazyLock::new(|| "device".into());

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    fn row(first: u64, last: u64, index: usize) -> Row<str> {
        Row::new(span(first, last), &HANDLER, index)
    }

    /// Spans of the devices 1, 2 and so on.
    fn table(spans: &[(u64, u64)]) -> Table<str> {
        let mut table = Table::new();
        for (&(first, last), index) in spans.iter().zip(1..) {
            assert!(table.insert(row(first, last, index)).unwrap().is_none());
        }
        table
    }

    fn owner(table: &Table<str>, addr: u64) -> Option<usize> {
        table.find(addr).map(|row| row.index)
    }

    #[test]
    fn an_empty_table_owns_nothing() {
        let table = table(&[]);
        assert!(table.find(0).is_none() && table.find(u64::MAX).is_none());
    }

    #[test]
    fn finds_the_owner_at_both_ends_and_none_between() {
        let table = table(&[(0x30, 0x3f), (0x10, 0x1f), (0x40, 0x40)]);
        let owners =
            [0xf, 0x10, 0x1f, 0x20, 0x2f, 0x30, 0x3f, 0x40, 0x41].map(|a| owner(&table, a));
        let (a, b, c) = (Some(1), Some(2), Some(3));
        assert_eq!(owners, [None, b, b, None, None, a, a, c, None]);
    }

    #[test]
    fn finds_the_owner_of_all_of_an_access_only() {
        let table = table(&[(0x10, 0x1f), (0x20, 0x2f)]);
        let found = |addr, beyond| table.search(addr, beyond).ok().map(|row| row.index);
        assert_eq!(found(0x18, 7), Some(1));
        assert_eq!(found(0x19, 7), None, "although another device follows");
        assert_eq!(found(0x28, 7), Some(2));
    }

    #[test]
    fn the_whole_bus_can_be_one_span() {
        let table = table(&[(0, u64::MAX)]);
        assert_eq!(owner(&table, 0), Some(1));
        assert_eq!(owner(&table, u64::MAX), Some(1));
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
        for (first, last, owner) in cases {
            let refused = table.insert(row(first, last, 9)).unwrap();
            assert_eq!(refused.map(|row| row.index), Some(owner));
        }
        assert_eq!(table.rows().len(), 2);
        assert!(table.insert(row(0x20, 0x2f, 3)).unwrap().is_none());
    }

    #[test]
    fn removing_a_span_leaves_its_neighbours() {
        let mut table = table(&[(0x10, 0x1f), (0x20, 0x2f), (0x30, 0x3f)]);
        assert!(
            !table.remove(1, span(0x20, 0x2f)).unwrap(),
            "it is the second's"
        );
        assert!(
            !table.remove(2, span(0x20, 0x2e)).unwrap(),
            "it owns one more"
        );
        assert!(table.remove(2, span(0x20, 0x2f)).unwrap());
        assert!(!table.remove(2, span(0x20, 0x2f)).unwrap());
        let owners = [0x1f, 0x20, 0x2f, 0x30].map(|addr| owner(&table, addr));
        assert_eq!(owners, [Some(1), None, None, Some(3)]);
    }

    #[test]
    fn removing_a_device_removes_all_its_rows() {
        let mut table = table(&[(0x10, 0x1f), (0x20, 0x2f)]);
        assert!(table.insert(row(0x30, 0x3f, 1)).unwrap().is_none());
        assert!(table.remove_all(1).unwrap() && !table.remove_all(1).unwrap());
        let owners = [0x10, 0x20, 0x30].map(|addr| owner(&table, addr));
        assert_eq!(owners, [None, Some(2), None]);
    }

    #[test]
    fn a_copy_is_independent() {
        let one = table(&[(0x10, 0x1f)]);
        let mut two = one.try_clone(1).unwrap();
        assert!(two.insert(row(0, 0xf, 2)).unwrap().is_none());
        assert_eq!((owner(&one, 0), owner(&two, 0)), (None, Some(2)));
    }
}
