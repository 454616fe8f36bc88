//! [`Span`]: a non-empty run of addresses with *inclusive* ends.

use core::fmt;

/// A run of addresses on one bus, both ends inclusive.
///
/// With inclusive ends the last address of a bus needs no special case, and no sum can wrap.
///
/// # Invariants
///
/// `first <= last`: a span is never empty.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Span {
    first: u64,
    last: u64,
}

impl Span {
    /// The addresses `first ..= last`, or `None` if `last` is below `first`.
    pub const fn new(first: u64, last: u64) -> Option<Self> {
        if first <= last {
            // INVARIANT: first <= last was just checked.
            Some(Self { first, last })
        } else {
            None
        }
    }

    /// The `length` addresses that start at `first`, or `None` if `length` is zero or the last
    /// address exceeds 64 bits.
    pub const fn with_length(first: u64, length: u64) -> Option<Self> {
        match length.checked_sub(1) {
            Some(beyond) => match first.checked_add(beyond) {
                Some(last) => Self::new(first, last),
                None => None,
            },
            None => None,
        }
    }

    /// The lowest address.
    pub const fn first(self) -> u64 {
        self.first
    }

    /// The highest address, itself part of the span.
    pub const fn last(self) -> u64 {
        self.last
    }

    /// Whether `addr` lies in the span.
    pub const fn contains(self, addr: u64) -> bool {
        self.first <= addr && addr <= self.last
    }

    /// Whether an access of `1 + beyond` bytes at `addr` lies *wholly* in the span.
    #[inline]
    pub(crate) const fn holds(self, addr: u64, beyond: u64) -> bool {
        match self.last.checked_sub(addr) {
            Some(left) => left >= beyond && self.first <= addr,
            None => false,
        }
    }

    /// Whether the two spans share an address.
    pub const fn overlaps(self, other: Self) -> bool {
        self.first <= other.last && other.first <= self.last
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}..={:#x}", self.first, self.last)
    }
}

impl fmt::Debug for Span {
    /// In hexadecimal, as [`Display`](fmt::Display) has it: `Span(0x1000..=0x1fff)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Span({self})")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn is_never_empty() {
        assert_eq!(Span::new(1, 0), None);
        assert_eq!(span(7, 7).first(), 7);
        assert_eq!(span(7, 7).last(), 7);
    }

    #[test]
    fn has_its_length() {
        assert_eq!(Span::with_length(0x10, 0x10), Some(span(0x10, 0x1f)));
        assert_eq!(
            Span::with_length(u64::MAX, 1),
            Some(span(u64::MAX, u64::MAX))
        );
        assert_eq!(Span::with_length(u64::MAX, 2), None);
        assert_eq!(Span::with_length(0, 0), None);
        assert_eq!(
            Span::with_length(0, u64::MAX).map(Span::last),
            Some(u64::MAX - 1)
        );
    }

    #[test]
    fn contains_both_ends() {
        let s = span(0x10, 0x1f);
        assert!(s.contains(0x10) && s.contains(0x1f));
        assert!(!s.contains(0xf) && !s.contains(0x20));
    }

    #[test]
    fn holds_whole_accesses_only() {
        let s = span(0x10, 0x1f);
        assert!(s.holds(0x18, 7));
        assert!(!s.holds(0x19, 7));
        assert!(!s.holds(0xf, 7));
        assert!(span(0, u64::MAX).holds(u64::MAX, 0));
        assert!(!span(0, u64::MAX).holds(u64::MAX, 1));
    }

    #[test]
    fn overlap_needs_a_common_address() {
        let s = span(0x10, 0x1f);
        assert!(s.overlaps(span(0x1f, 0x20)) && s.overlaps(span(0, 0x10)));
        assert!(s.overlaps(span(0x14, 0x15)) && span(0x14, 0x15).overlaps(s));
        assert!(!s.overlaps(span(0x20, 0x2f)) && !s.overlaps(span(0, 0xf)));
    }

    #[test]
    fn shows_inclusive_ends_in_hexadecimal() {
        assert_eq!(span(0x10, 0x1f).to_string(), "0x10..=0x1f");
        assert_eq!(format!("{:?}", span(0x10, 0x1f)), "Span(0x10..=0x1f)");
    }
}
