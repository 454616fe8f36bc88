//! The registers of `arm_vgic::v3::vgicd::VGicD`, the GICv3 distributor.
//!
//! Offsets, sizes and permitted accesses: Arm GIC architecture specification, GICv3 and
//! GICv4, IHI 0069, "The GIC Distributor register map" and "GIC memory-mapped register access".

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};

use super::{
    enter::Occupancy::Shared,
    guard::{
        Registers,
        Verdict::{self, Keep, Nothing, Pass},
    },
};

/// Forwards the registers that the device masks to the guest's own interrupts.
///
/// Several vCPUs can be in the device together. The device has one cell, `assigned_irqs` (`vgicd.rs:42`).
/// `assign_irq` (`vgicd.rs:74`) writes it before the guest runs; after that it is only read
/// (`vgicd.rs:256`). A write that masks the host's register reads the register first, and holds the
/// device's own lock, `GICD_LOCK` (`vgicd.rs:332`). Every other access is one access of the host's register.
pub(crate) struct Gicd;

/// The accesses that a register allows.
enum Kind {
    /// In four bytes, and read only.
    ReadOnly,
    /// In four bytes. Interrupt groups: see [`Gicd::write`].
    Group,
    /// In four bytes.
    Word,
    /// In four bytes or in one.
    Bytes,
    /// In one byte: the device checks the guest's ownership only for the interrupt of the first byte.
    Byte,
    /// In eight bytes or in either half.
    Long,
    Reserved,
}

#[inline]
const fn kind(offset: usize) -> Kind {
    match offset {
        // GICD_CTLR, GICD_TYPER, GICD_IIDR, GICD_TYPER2; GICD_PIDR4 to GICD_CIDR3.
        0x0..=0xf | 0xffd0..=0xffff => Kind::ReadOnly,
        // GICD_IGROUPR.
        0x80..=0xff => Kind::Group,
        // GICD_ISENABLER to GICD_ICACTIVER; GICD_ICFGR, GICD_IGRPMODR.
        0x100..=0x3ff | 0xc00..=0xd7f => Kind::Word,
        // GICD_IPRIORITYR.
        0x400..=0x7ff => Kind::Bytes,
        // GICD_ITARGETSR.
        0x800..=0xbff => Kind::Byte,
        // GICD_IROUTER32 to GICD_IROUTER1019.
        0x6100..=0x7fdf => Kind::Long,
        _ => Kind::Reserved,
    }
}

impl Registers for Gicd {
    #[inline]
    fn read(&self, offset: usize, width: AccessWidth) -> Verdict {
        match (kind(offset), width) {
            (Kind::ReadOnly | Kind::Group | Kind::Word | Kind::Bytes | Kind::Long, Dword)
            | (Kind::Bytes | Kind::Byte, Byte)
            | (Kind::Long, Qword) => Pass(Shared),
            _ => Nothing,
        }
    }

    #[inline]
    fn write(&self, offset: usize, width: AccessWidth, value: usize) -> Verdict {
        match (kind(offset), width) {
            // If the host's GIC has one security state, interrupts of group 0 are FIQs, which are the
            // hypervisor's. A guest cannot put an interrupt into that group. All writes of these
            // registers are alone: this guard writes back the value that it reads, outside of GICD_LOCK.
            (Kind::Group, Dword) => Keep(!value),
            (Kind::ReadOnly, _) => Nothing,
            _ => self.read(offset, width),
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn accesses_that_the_device_does_not_support_are_reserved() {
        // GICD_STATUSR, GICD_SETSPI_NSR, GICD_NSACR, GICD_SGIR, GICD_IROUTER0, beyond the frame.
        for offset in [
            0x10, 0x30, 0x40, 0x7c, 0xd80, 0xe00, 0xf00, 0x6000, 0x60f8, 0x7fe0, 0x8000, 0xffcc,
            0x1_0000, 0x2_0000,
        ] {
            for width in [Byte, AccessWidth::Word, Dword, Qword] {
                assert_eq!(Gicd.read(offset, width), Nothing, "{offset:#x}");
                assert_eq!(Gicd.write(offset, width, 1), Nothing, "{offset:#x}");
            }
        }
    }

    #[test]
    fn a_bank_is_accessed_in_the_sizes_that_it_supports() {
        let sizes = |offset| {
            let widths = [Byte, AccessWidth::Word, Dword, Qword];
            widths.map(|width| Gicd.read(offset, width) == Pass(Shared))
        };
        let words = [false, false, true, false];
        for offset in [0x80, 0x100, 0x17c, 0x178, 0x3fc, 0xc00, 0xd00, 0xd7c] {
            assert_eq!(sizes(offset), words, "{offset:#x}");
        }
        assert_eq!(sizes(0x400), [true, false, true, false]);
        assert_eq!(sizes(0xbff), [true, false, false, false]);
        assert_eq!(sizes(0x6100), [false, false, true, true]);
        assert_eq!(sizes(0x7fd8), [false, false, true, true]);
    }

    #[test]
    fn identification_is_read_only_and_groups_only_grow() {
        for offset in [0x0, 0x4, 0x8, 0xc, 0xffd0, 0xffe8, 0xfffc] {
            assert_eq!(Gicd.read(offset, Dword), Pass(Shared), "{offset:#x}");
            assert_eq!(Gicd.write(offset, Dword, 1), Nothing, "{offset:#x}");
        }
        assert_eq!(Gicd.write(0x84, Dword, 0xf0), Keep(!0xf0));
        assert_eq!(Gicd.write(0x84, Byte, 0xf0), Nothing);
    }
}
