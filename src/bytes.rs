//! Accesses as KVM hands them over: bytes, little-endian.

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;

use crate::bus::BusRange;

/// Fills `data` with what `read` gives for its width or, where there is an error, as a floating bus
/// would.
pub(crate) fn fill<R: BusRange>(
    data: &mut [u8],
    read: impl FnOnce(AccessWidth) -> AxResult<usize>,
) -> AxResult {
    let value = width_of(data).and_then(read);
    match value {
        Ok(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
        Err(_) => data.fill(R::floating(AccessWidth::Byte) as u8),
    }
    value.map(drop)
}

/// The width and the value of what is written.
pub(crate) fn value_of(data: &[u8]) -> AxResult<(AccessWidth, usize)> {
    let width = width_of(data)?;
    let mut bytes = [0; size_of::<usize>()];
    bytes[..data.len()].copy_from_slice(data);
    Ok((width, usize::from_le_bytes(bytes)))
}

fn width_of(data: &[u8]) -> AxResult<AccessWidth> {
    AccessWidth::try_from(data.len()).map_err(|()| AxError::InvalidInput)
}
