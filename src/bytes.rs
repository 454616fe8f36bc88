//! Accesses in the format of KVM: bytes, little-endian, in one access or several.

use core::{iter, ops::Range};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;

use crate::bus::{BusAddr, BusRange, sealed::Bus as _};

/// The longest exit that is one access of the guest, in bytes.
const LONGEST: usize = 8;

/// Reads `data` from `addr` on in pieces, with `dispatch`. The length of `data` is not the width of an access.
#[cold]
#[inline(never)]
pub(crate) fn read_pieces<A: BusAddr>(
    addr: A,
    data: &mut [u8],
    dispatch: &mut dyn FnMut(A, AccessWidth) -> AxResult<usize>,
) -> AxResult {
    if !is_one_access(data.len()) {
        return fill::<A::Range>(data, Err(AxError::InvalidInput));
    }
    first_error(pieces(addr, data.len()).map(|piece| {
        let value = dispatch(piece.addr, piece.width);
        fill::<A::Range>(&mut data[piece.bytes], value)
    }))
}

/// Writes `data` from `addr` on in pieces, with `dispatch`. The length of `data` is not the width of an access.
#[cold]
#[inline(never)]
pub(crate) fn write_pieces<A: BusAddr>(
    addr: A,
    data: &[u8],
    dispatch: &mut dyn FnMut(A, AccessWidth, usize) -> AxResult,
) -> AxResult {
    if !is_one_access(data.len()) {
        return Err(AxError::InvalidInput);
    }
    first_error(
        pieces(addr, data.len())
            .map(|piece| dispatch(piece.addr, piece.width, value_of(&data[piece.bytes]))),
    )
}

/// Fills each item of `items`, of `width`, with a value that `read` returns.
pub(crate) fn read_repeated<R: BusRange>(
    width: AccessWidth,
    items: &mut [u8],
    mut read: impl FnMut() -> AxResult<usize>,
) -> AxResult {
    if !items.len().is_multiple_of(width.size()) {
        return fill::<R>(items, Err(AxError::InvalidInput));
    }
    let items = items.chunks_exact_mut(width.size());
    first_error(items.map(|item| fill::<R>(item, read())))
}

/// Calls `write` with each item of `items`, of `width`.
pub(crate) fn write_repeated(
    width: AccessWidth,
    items: &[u8],
    mut write: impl FnMut(usize) -> AxResult,
) -> AxResult {
    if !items.len().is_multiple_of(width.size()) {
        return Err(AxError::InvalidInput);
    }
    let items = items.chunks_exact(width.size());
    first_error(items.map(|item| write(value_of(item))))
}

/// Whether an access of the guest can have this many bytes.
fn is_one_access(len: usize) -> bool {
    (1..=LONGEST).contains(&len)
}

/// A part of an access, dispatched separately.
struct Piece<A> {
    addr: A,
    width: AccessWidth,
    /// Its bytes in the buffer. Their number is the width or less.
    bytes: Range<usize>,
}

/// Splits `len` bytes from `addr` on into aligned powers of two, in ascending order.
///
/// Some accesses cannot be split and become one access of the next power of two: to a system register, which is not
/// made of bytes, and past the end of the bus, where no device owns the whole access.
fn pieces<A: BusAddr>(addr: A, len: usize) -> impl Iterator<Item = Piece<A>> {
    let is_split = A::Range::after(addr, len - 1).is_some();
    let mut done = 0;
    iter::from_fn(move || {
        let left = len - done;
        if left == 0 {
            return None;
        }
        let (addr, size) = if is_split {
            let addr = A::Range::after(addr, done)?;
            (addr, aligned_size(A::Range::number(addr), left))
        } else {
            (addr, len.next_power_of_two())
        };
        let bytes = done..len.min(done + size);
        done = bytes.end;
        let width = AccessWidth::try_from(size).ok()?;
        Some(Piece { addr, width, bytes })
    })
}

/// The largest power of two, at most `left`, that `at` is a multiple of.
fn aligned_size(at: u64, left: usize) -> usize {
    let aligned = 1 << at.trailing_zeros().min(LONGEST.ilog2());
    aligned.min(1 << left.ilog2())
}

/// Fills `data` with the bytes of a read value or, after an error, of a floating bus.
#[inline]
pub(crate) fn fill<R: BusRange>(data: &mut [u8], value: AxResult<usize>) -> AxResult {
    match value {
        Ok(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
        Err(_) => data.fill(R::floating(AccessWidth::Byte) as u8),
    }
    value.map(drop)
}

/// The value of written bytes, at most [`LONGEST`] of them.
#[inline]
pub(crate) fn value_of(data: &[u8]) -> usize {
    let mut bytes = [0; size_of::<usize>()];
    bytes[..data.len()].copy_from_slice(data);
    usize::from_le_bytes(bytes)
}

/// Makes all accesses, even after one fails, and returns the first error.
fn first_error(accesses: impl Iterator<Item = AxResult>) -> AxResult {
    accesses.fold(Ok(()), Result::and)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::{
        GuestPhysAddr,
        device::{Port, SysRegAddr},
    };

    use super::*;

    /// The start and the size of each piece.
    fn cut<A: BusAddr>(addr: A, len: usize) -> Vec<(u64, usize)> {
        let pieces = pieces(addr, len);
        pieces
            .map(|piece| (A::Range::number(piece.addr), piece.width.size()))
            .collect()
    }

    #[test]
    fn an_access_is_cut_into_aligned_powers_of_two() {
        let mmio = |at: usize, len| cut(GuestPhysAddr::from(at), len);
        assert_eq!(mmio(0xffd, 3), [(0xffd, 1), (0xffe, 2)]);
        assert_eq!(mmio(0x1000, 5), [(0x1000, 4), (0x1004, 1)]);
        assert_eq!(mmio(0xffb, 5), [(0xffb, 1), (0xffc, 4)]);
        assert_eq!(mmio(0xffa, 6), [(0xffa, 2), (0xffc, 4)]);
        assert_eq!(mmio(0xff9, 7), [(0xff9, 1), (0xffa, 2), (0xffc, 4)]);
        assert_eq!(mmio(0x1001, 5), [(0x1001, 1), (0x1002, 2), (0x1004, 2)]);
    }

    #[test]
    fn an_access_to_a_register_or_past_the_last_address_is_not_cut() {
        assert_eq!(cut(SysRegAddr(0xffd), 3), [(0xffd, 4)]);
        assert_eq!(cut(Port(0xfffd), 3), [(0xfffd, 1), (0xfffe, 2)]);
        assert_eq!(cut(Port(0xfffe), 3), [(0xfffe, 4)]);
        let last = GuestPhysAddr::from(usize::MAX);
        assert_eq!(cut(last, 7), [(u64::MAX, 8)]);
    }
}
