//! [`Cursor`]: places one device after the other.

use busmap::Span;

/// The first address that is not used yet.
pub(crate) struct Cursor(u64);

impl Cursor {
    pub(crate) const fn at(first: u64) -> Self {
        Self(first)
    }

    /// Leaves this number of addresses unused.
    pub(crate) fn skip(&mut self, gap: u64) -> &mut Self {
        self.0 += gap;
        self
    }

    /// Leaves addresses unused up to the next multiple of `to`.
    pub(crate) fn align(&mut self, to: u64) -> &mut Self {
        self.0 = self.0.next_multiple_of(to);
        self
    }

    /// The next `len` addresses.
    ///
    /// # Panics
    ///
    /// If there are fewer, or `len` is zero.
    pub(crate) fn take(&mut self, len: u64) -> Span {
        let span = Span::with_length(self.0, len).expect("a device has addresses");
        self.0 += len;
        span
    }
}

/// `n` devices of `len` addresses each, `stride` from one to the next.
pub(crate) fn evenly(first: u64, len: u64, stride: u64, n: usize) -> Vec<Span> {
    let mut cursor = Cursor::at(first);
    let mut place = || {
        let span = cursor.take(len);
        cursor.skip(stride - len);
        span
    };
    (0..n).map(|_| place()).collect()
}
