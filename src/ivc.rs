//! [`IvcChannels`]: the allocator of inter-VM-communication channels.

use alloc::vec::Vec;
use core::{fmt, iter};

use ax_errno::{AxError, AxResult};
use axaddrspace::GuestPhysAddr;
use busmap::Span;
use crossbeam_utils::CachePadded;

use crate::sync::{Arc, Mutex, mutant};

/// The unit of allocation, in bytes.
const PAGE: usize = 4096;

/// The largest range that can be set aside, in bytes: 64 GiB, with a bitmap of 2 MiB.
pub(crate) const MAX_LENGTH: usize = 1 << 36;

/// The IVC range of a configuration.
///
/// # Invariants
///
/// The registry keeps devices out of `range`.
#[derive(Debug)]
pub(crate) struct Ivc {
    /// The name of the entry that sets it aside.
    pub(crate) name: Arc<str>,
    pub(crate) range: Span,
    pub(crate) channels: IvcChannels,
}

/// One range of guest physical memory, from which channels are allocated.
///
/// A bitmap, made at start-up, has one bit for each page: nothing is allocated under the lock. The allocator's lock is
/// on its own cache line; a dispatch does not take it.
pub(crate) struct IvcChannels {
    base: usize,
    pages: CachePadded<Mutex<Bitmap>>,
}

impl IvcChannels {
    /// Returns an allocator of `[base, base + length)` with all pages free; `None` if there is no memory for the
    /// bitmap.
    ///
    /// The caller has checked that the range does not wrap and consists of whole pages.
    pub(crate) fn new(base: usize, length: usize) -> Option<Self> {
        Some(Self {
            base,
            pages: CachePadded::new(Mutex::new(Bitmap::new(length / PAGE)?)),
        })
    }

    /// Allocates `size` bytes in the smallest free run that holds them; of runs of equal length, in the lowest.
    pub(crate) fn alloc(&self, size: usize) -> AxResult<GuestPhysAddr> {
        let count = pages(size)
            .filter(|&n| n > 0)
            .ok_or(AxError::InvalidInput)?;
        let mut pages = self.pages.lock();
        let first = pages.find(count).ok_or(AxError::NoMemory)?;
        if mutant("ivc-alloc-unlocks") {
            drop(pages);
            pages = self.pages.lock();
        }
        pages.take(first, count);
        Ok(GuestPhysAddr::from_usize(self.base + first * PAGE))
    }

    /// Releases `size` bytes at `addr`, all of which must be allocated.
    pub(crate) fn release(&self, addr: GuestPhysAddr, size: usize) -> AxResult {
        let count = pages(size).filter(|&n| n > 0);
        let first = addr.as_usize().checked_sub(self.base).and_then(pages);
        let (Some(first), Some(count)) = (first, count) else {
            return Err(AxError::InvalidInput);
        };
        let mut pages = self.pages.lock();
        if !pages.are_taken(first, count) {
            return Err(AxError::InvalidInput);
        }
        if mutant("ivc-release-unlocks") {
            drop(pages);
            pages = self.pages.lock();
        }
        pages.free(first, count);
        Ok(())
    }
}

impl fmt::Debug for IvcChannels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IvcChannels")
            .field("base", &format_args!("{:#x}", self.base))
            .finish_non_exhaustive()
    }
}

/// Converts `bytes` to a whole number of pages.
pub(crate) const fn pages(bytes: usize) -> Option<usize> {
    if bytes.is_multiple_of(PAGE) {
        Some(bytes / PAGE)
    } else {
        None
    }
}

/// A bitmap of the allocated pages.
///
/// # Invariants
///
/// The bits of `words` from `len` on are set: the pages there are never free.
struct Bitmap {
    words: Vec<u64>,
    len: usize,
}

const BITS: usize = u64::BITS as usize;

impl Bitmap {
    /// Returns a bitmap of `len` free pages, or `None` if there is no memory for it.
    fn new(len: usize) -> Option<Self> {
        let count = len.div_ceil(BITS);
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        words.resize(count, 0);
        let mut bitmap = Self { words, len };
        // INVARIANT: the bits past the end are set here and never cleared: `are_taken` checks.
        bitmap.take(len, count * BITS - len);
        Some(bitmap)
    }

    /// Returns the start of the smallest free run that holds `count` pages.
    fn find(&self, count: usize) -> Option<usize> {
        let runs = self.free_runs().filter(|&(_, length)| length >= count);
        runs.min_by_key(|&(_, length)| length)
            .map(|(first, _)| first)
    }

    /// Whether `count` pages from `first` on are in the bitmap, and all are taken.
    fn are_taken(&self, first: usize, count: usize) -> bool {
        let end = first.checked_add(count).filter(|&end| end <= self.len);
        end.is_some_and(|end| self.next(first, false) >= end)
    }

    /// Takes `count` pages from `first` on.
    fn take(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.words[page / BITS] |= bit(page));
    }

    /// Frees `count` pages from `first` on.
    fn free(&mut self, first: usize, count: usize) {
        (first..first + count).for_each(|page| self.words[page / BITS] &= !bit(page));
    }

    /// Iterates over the free runs in ascending order: first page and length.
    fn free_runs(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut from = 0;
        iter::from_fn(move || {
            let first = self.next(from, false);
            from = self.next(first, true);
            (first < self.len).then_some((first, from - first))
        })
    }

    /// The first page at or above `from` that is `taken`, or the end of the bitmap.
    fn next(&self, from: usize, taken: bool) -> usize {
        let flip = if taken { 0 } else { u64::MAX };
        let mut below = bit(from) - 1;
        for index in from / BITS..self.words.len() {
            let found = (self.words[index] ^ flip) & !below;
            if found != 0 {
                return index * BITS + found.trailing_zeros() as usize;
            }
            below = 0;
        }
        self.words.len() * BITS
    }
}

/// The bit of a page in its word.
const fn bit(page: usize) -> u64 {
    1 << (page % BITS)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const BASE: usize = 0x4000_0000;

    fn channels(pages: usize) -> IvcChannels {
        IvcChannels::new(BASE, pages * PAGE).unwrap()
    }

    fn at(page: usize) -> GuestPhysAddr {
        GuestPhysAddr::from_usize(BASE + page * PAGE)
    }

    #[test]
    fn allocates_all_there_is_and_no_more() {
        for count in [1, 63, 64, 65, 128] {
            let ivc = channels(count);
            let pages: Vec<_> = (0..count).map(|_| ivc.alloc(PAGE).unwrap()).collect();
            assert_eq!(pages, (0..count).map(at).collect::<Vec<_>>());
            assert_eq!(ivc.alloc(PAGE), Err(AxError::NoMemory));
            ivc.release(BASE.into(), count * PAGE).unwrap();
            assert_eq!(ivc.alloc(count * PAGE), Ok(at(0)));
        }
    }

    #[test]
    fn prefers_the_smallest_piece_that_fits() {
        let ivc = channels(64);
        ivc.alloc(64 * PAGE).unwrap();
        for (first, count) in [(0, 5), (10, 2), (20, 3), (30, 2)] {
            ivc.release(at(first), count * PAGE).unwrap();
        }
        assert_eq!(ivc.alloc(2 * PAGE), Ok(at(10)));
        assert_eq!(ivc.alloc(2 * PAGE), Ok(at(30)));
        assert_eq!(ivc.alloc(2 * PAGE), Ok(at(20)));
        assert_eq!(ivc.alloc(4 * PAGE), Ok(at(0)));
        assert_eq!(ivc.alloc(2 * PAGE), Err(AxError::NoMemory));
    }

    #[test]
    fn refuses_bad_sizes() {
        let ivc = channels(4);
        for size in [0, 1, PAGE - 1, PAGE + 1, usize::MAX] {
            assert_eq!(ivc.alloc(size), Err(AxError::InvalidInput), "{size:#x}");
            assert_eq!(
                ivc.release(at(0), size),
                Err(AxError::InvalidInput),
                "{size:#x}"
            );
        }
        assert_eq!(ivc.alloc(5 * PAGE), Err(AxError::NoMemory));
        assert_eq!(ivc.alloc(usize::MAX - PAGE + 1), Err(AxError::NoMemory));
    }

    #[test]
    fn a_bad_release_changes_nothing() {
        let ivc = channels(8);
        assert_eq!(ivc.alloc(4 * PAGE), Ok(at(0)));
        let bad = [
            (at(4), PAGE),                          // free
            (at(3), 2 * PAGE),                      // partly free
            (at(0), 9 * PAGE),                      // longer than the range
            (at(8), PAGE),                          // behind it
            ((BASE - PAGE).into(), PAGE),           // before it
            ((BASE + 1).into(), PAGE),              // unaligned
            (at(1), usize::MAX - PAGE + 1),         // wraps
            ((usize::MAX - PAGE + 1).into(), PAGE), // ends at the end of memory
            (0.into(), PAGE),                       // foreign
        ];
        for (addr, size) in bad {
            assert_eq!(
                ivc.release(addr, size),
                Err(AxError::InvalidInput),
                "{addr:?} {size:#x}"
            );
        }
        assert_eq!(ivc.alloc(4 * PAGE), Ok(at(4)));
        ivc.release(at(0), 8 * PAGE).unwrap();
        assert_eq!(
            ivc.release(at(0), PAGE),
            Err(AxError::InvalidInput),
            "released twice"
        );
    }
}
