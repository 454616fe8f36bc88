//! [`Pages`]: the naive model of the IVC allocator.

use ax_errno::{AxError, AxResult};

use super::input::Size;

pub(crate) const PAGE: usize = 0x1000;

/// The start of the range for IVC channels: devices request addresses there too.
pub(crate) const BASE: usize = 0x1000;

impl Size {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Pages(pages, odd) => usize::from(pages) * PAGE + odd.bytes(),
            Self::Any(bytes) => bytes,
        }
    }
}

/// Whether each page is allocated.
pub(crate) struct Pages(Vec<bool>);

impl Pages {
    pub(crate) fn new(count: u8) -> Self {
        Self(vec![false; count.into()])
    }

    /// Takes the smallest free piece that is large enough, the lowest of equals.
    pub(crate) fn alloc(&mut self, size: usize) -> AxResult<usize> {
        let count = self.count(size)?;
        let pieces = self.0.chunk_by(|a, b| a == b).scan(0, |end, piece| {
            let first = *end;
            *end += piece.len();
            Some((piece, first))
        });
        let fitting = pieces.filter(|(piece, _)| !piece[0] && piece.len() >= count);
        let best = fitting.map(|(piece, first)| (piece.len(), first)).min();
        let (_, first) = best.ok_or(AxError::NoMemory)?;
        self.0[first..first + count].fill(true);
        Ok(BASE + first * PAGE)
    }

    /// Frees pages if all of them are allocated.
    pub(crate) fn release(&mut self, addr: usize, size: usize) -> AxResult {
        let count = self.count(size)?;
        let offset = addr.checked_sub(BASE).ok_or(AxError::InvalidInput)?;
        let first = offset / PAGE;
        let pages = (self.0.get_mut(first..first.saturating_add(count)))
            .filter(|pages| offset.is_multiple_of(PAGE) && pages.iter().all(|&taken| taken));
        pages.ok_or(AxError::InvalidInput)?.fill(false);
        Ok(())
    }

    fn count(&self, size: usize) -> AxResult<usize> {
        let valid = !self.0.is_empty() && size > 0 && size.is_multiple_of(PAGE);
        valid.then_some(size / PAGE).ok_or(AxError::InvalidInput)
    }
}
