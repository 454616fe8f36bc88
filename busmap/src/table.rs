//! [`Table`]: who owns which addresses of one bus, sorted by address, immutable once published.

use alloc::vec::Vec;
use core::{fmt, ptr::NonNull};

use crate::{
    index::Index,
    refusal::Refusal,
    reserve::{reserve, reserved},
    span::Span,
    sync::Arc,
};

/// A row of a [`Table`]: who owns a span of addresses, and all that a dispatch needs of it.
///
/// Without a count of its own, so that copying it is copying memory. Only ever in a table.
pub(crate) struct Row<D: ?Sized> {
    pub(crate) span: Span,
    /// What a dispatch calls.
    handler: NonNull<D>,
    /// Where among the registrations the owner is.
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

    /// What a dispatch calls.
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

/// The index of no row.
const NONE: usize = usize::MAX;

/// The rows of one bus, sorted by address.
///
/// Pure data: it knows of no other thread. An [`Index`] says with which of the spans' first addresses, which lie
/// side by side, an address has to be compared.
///
/// # Invariants
///
/// - *Sorted*: `firsts` ascends, `firsts[i] == rows[i].span.first()`, and one `u64::MAX` follows, unless both are
///   empty.
/// - *Disjoint*: no two spans overlap.
/// - *Owned*: the registrations beside the table have, at the index of each row, one with an `Arc` of
///   the row's handler. [`Tables`](crate::tables::Tables) sees to it: a row is made of a registration
///   that is there, and goes with it at the latest.
pub(crate) struct Table<D: ?Sized> {
    firsts: Vec<u64>,
    rows: Vec<Row<D>>,
    /// Of `firsts`.
    index: Index,
}

impl<D: ?Sized> Table<D> {
    pub(crate) const fn new() -> Self {
        Self {
            firsts: Vec::new(),
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
        let mut firsts = reserved(self.rows.len() + more + 1)?;
        let mut rows = reserved(self.rows.len() + more)?;
        firsts.extend_from_slice(&self.firsts);
        // INVARIANT (all): the same rows in the same order.
        rows.extend(self.rows.iter().map(Row::copied));
        let index = self.index.try_clone()?;
        Ok(Self {
            firsts,
            rows,
            index,
        })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]: the table is of no more use then.
    ///
    /// An overlap is no error: the lowest row that the new one would overlap is given, and the table is unchanged.
    pub(crate) fn insert(&mut self, row: Row<D>) -> Result<Option<&Row<D>>, Refusal> {
        let at = self.rank(row.span.first());
        let mut neighbours = at.saturating_sub(1)..self.rows.len().min(at + 1);
        if let Some(i) = neighbours.find(|&i| self.rows[i].span.overlaps(row.span)) {
            return Ok(Some(&self.rows[i]));
        }
        reserve(&mut self.firsts, 2)?;
        reserve(&mut self.rows, 1)?;
        if self.rows.is_empty() {
            self.firsts.clear();
            self.firsts.push(u64::MAX);
        }
        // INVARIANT (Sorted, Disjoint): everything below `at` starts at or below the new span's first
        // address and, not overlapping it, ends below it; everything from `at` on starts above its
        // last.
        let first = row.span.first();
        self.firsts.insert(at, first);
        self.rows.insert(at, row);
        self.index_row(Index::inserted, first)?;
        Ok(None)
    }

    /// Takes out the row by which the device at `index` owns exactly `span`. Tells whether there was
    /// one.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]: the table is of no more use then.
    pub(crate) fn remove(&mut self, index: usize, span: Span) -> Result<bool, Refusal> {
        let at = self.nearest(span.first());
        let found = (self.rows.get(at)).is_some_and(|row| row.index == index && row.span == span);
        if found {
            self.remove_at(at)?;
        }
        Ok(found)
    }

    /// Takes out all rows of the device at `index`. Tells whether there were any.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]: the table is of no more use then.
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
        let first = self.firsts.remove(at);
        self.rows.remove(at);
        self.index_row(Index::removed, first)
    }

    /// Tells the index of a row that was inserted or removed.
    fn index_row(
        &mut self,
        tell: impl Fn(&mut Index, u64, &[u64], u64) -> Result<(), Refusal>,
        first: u64,
    ) -> Result<(), Refusal> {
        let top = self.rows.last().map_or(0, |row| row.span.last());
        tell(&mut self.index, first, &self.firsts[..self.rows.len()], top)
    }

    /// The row whose span holds `addr`.
    pub(crate) fn find(&self, addr: u64) -> Option<&Row<D>> {
        self.search(addr, 0).ok()
    }

    /// The index of the row that starts nearest below `addr` or at it, if the index knows with one comparison. If it does
    /// not, any other index; if there is no such row, one out of range.
    #[inline(always)]
    pub(crate) fn guess(&self, addr: u64) -> usize {
        if let Some(below) = self.index.below(addr)
            && let Some(&next) = self.firsts.get(below)
        {
            return below.wrapping_sub(usize::from(addr < next));
        }
        NONE
    }

    /// The row at an index that [`guess`](Self::guess) gave, if its span holds all of `addr ..= addr + beyond`.
    #[inline(always)]
    pub(crate) fn guessed(&self, guess: usize, addr: u64, beyond: u64) -> Option<&Row<D>> {
        let row = self.rows.get(guess)?;
        row.span.holds(addr, beyond).then_some(row)
    }

    /// The row whose span holds all of `addr ..= addr + beyond`.
    ///
    /// # Errors
    ///
    /// The row whose span holds `addr`, if there is one.
    pub(crate) fn search(&self, addr: u64, beyond: u64) -> Result<&Row<D>, Option<&Row<D>>> {
        let nearest = self.rows.get(self.nearest(addr));
        match nearest {
            Some(row) if row.span.holds(addr, beyond) => Ok(row),
            nearest => Err(nearest.filter(|row| row.span.contains(addr))),
        }
    }

    /// The row that owns `addr`, if it is certain by a [guess](Self::guess) whether there is one.
    #[inline(always)]
    pub(crate) fn holder(&self, guess: usize, addr: u64) -> Option<Option<&Row<D>>> {
        if self.is_nearest(guess, addr) {
            let nearest = self.rows.get(guess);
            return Some(nearest.filter(|row| addr <= row.span.last()));
        }
        // The index tells nothing of addresses below all others.
        let lowest = self.firsts.first();
        lowest.is_none_or(|&lowest| addr < lowest).then_some(None)
    }

    /// Whether the row at an index, or no row for [`NONE`], starts nearest below `addr` or at it.
    #[inline(always)]
    fn is_nearest(&self, index: usize, addr: u64) -> bool {
        let next = self.firsts.get(index.wrapping_add(1));
        let starts = index == NONE || self.firsts.get(index).is_some_and(|&first| first <= addr);
        starts && next.is_some_and(|&next| addr < next)
    }

    /// The index of the one row that can hold `addr`: the last that starts at or below it. If there
    /// is none, [`NONE`].
    fn nearest(&self, addr: u64) -> usize {
        self.rank(addr).wrapping_sub(1)
    }

    /// How many rows start at or below `addr`.
    fn rank(&self, addr: u64) -> usize {
        self.index.rank(&self.firsts[..self.rows.len()], addr)
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
    fn finds_the_owner_at_both_ends_and_nobody_between() {
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
    fn what_is_removed_leaves_its_neighbours() {
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
    fn a_device_goes_with_all_its_rows() {
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
