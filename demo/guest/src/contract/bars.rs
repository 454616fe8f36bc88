//! A device for each vCPU, which its guest moves: the handler of a write to its base address register moves the
//! device. Only this guest accesses it, so from its next access on the device is at the new place, and no longer at
//! the old one.

/// Guest physical address of the first place of the first vCPU's device.
pub const BARS: u32 = 0xc800_0000;
/// The distance from one place to the next, in bytes.
pub const PLACE_STRIDE: u32 = 0x1000;
/// The size of all places of a vCPU's device, in bytes; a power of two.
pub const PLACES: u32 = 4 * PLACE_STRIDE;
/// The size of its registers.
pub const BAR_SIZE: u32 = 12;
/// Offset of the register that reads as the vCPU's pattern made from [`BAR_SEED`].
pub const BAR_ID: u32 = 0;
/// Offset of the base address register: the address of the device.
pub const BAR_ADDRESS: u32 = 4;
/// Offset of the doorbell. The vCPU rings it by a write of its pattern made from [`BELL_SEED`]. If the host has
/// doorbells, such a write does not exit.
pub const BAR_DOORBELL: u32 = 8;
/// The [`pattern`](super::pattern) of the register at [`BAR_ID`] is made from this.
pub const BAR_SEED: u32 = 0x2b99_c7d1;
/// The [`pattern`](super::pattern) that rings the doorbell is made from this.
pub const BELL_SEED: u32 = 0x5ee1_0a5d;

/// The initial place of a vCPU's device.
pub const fn first_place(vcpu: u32) -> u32 {
    BARS + vcpu * PLACES
}

/// The place after `place`; after the last place, the first.
pub const fn next_place(place: u32) -> u32 {
    (place & !(PLACES - 1)) | ((place + PLACE_STRIDE) & (PLACES - 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_goes_round_its_own_places() {
        let mut place = first_place(3);
        for _ in 0..PLACES / PLACE_STRIDE {
            assert!((first_place(3)..first_place(4)).contains(&place));
            place = next_place(place);
        }
        assert_eq!(place, first_place(3));
        assert_ne!(next_place(place), place);
    }
}
