//! The registers of `arm_vgic::v3::vgicr::VGicR`, a GICv3 redistributor: the registers of the physical
//! CPU's redistributor.
//!
//! Offsets, sizes and permitted accesses: Arm GIC architecture specification, GICv3 and
//! GICv4, IHI 0069, "The GIC Redistributor register map".

use core::ops::Range;

use axaddrspace::device::AccessWidth::{self, Byte, Dword, Qword};

use super::{
    enter::Occupancy::{Alone, Shared},
    guard::{
        Registers,
        Verdict::{self, As, Half, Keep, Nothing, Pass, Shown},
    },
    series::Last,
};

/// Forwards accesses to the physical CPU's private interrupts, and the permitted accesses to LPIs.
///
/// Several vCPUs can be in the device together, except for GICR_PROPBASER: the device's only cell, `regs`
/// (`vgicr.rs:51`), is read only at `vgicr.rs:130` and written only at `vgicr.rs:183`. The table of LPIs
/// has its own lock (`vgicr.rs:316`). Every other access is one access of the host's register.
pub(crate) struct Gicr<L> {
    /// Whether the guest may make the host's hardware handle LPIs. The guest chooses the physical
    /// address of the pending table, and the hardware writes there.
    pub(crate) trusted: bool,
    pub(crate) lpis: L,
    /// The length of the guest's range, in bytes.
    pub(crate) length: usize,
    pub(crate) last: Last,
}

/// The host's LPIs, as far as a guard needs them.
pub(crate) trait Lpis: Send + Sync + 'static {
    /// The interrupts for which the host's LPI configuration table has a byte. Empty if there is no
    /// table.
    fn configured(&self) -> Range<usize>;
}

impl Lpis for Range<usize> {
    fn configured(&self) -> Range<usize> {
        self.clone()
    }
}

/// The first LPI.
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
pub(crate) const FIRST_LPI: usize = 8192;

/// GICR_CTLR.EnableLPIs.
const ENABLE_LPIS: usize = 1 << 0;

/// GICR_WAKER.ProcessorSleep.
const PROCESSOR_SLEEP: usize = 1 << 1;

/// GICR_TYPER.VLPIS: there are four frames of 64 KiB, so the next redistributor is 256 KiB further on,
/// not 128 KiB.
const VLPIS: usize = 1 << 1;

/// Other fields about virtual LPIs, which are zero without virtual LPIs: GICR_TYPER.Dirty, RVPEID, VSGI.
const OF_VLPIS: usize = 1 << 2 | 1 << 7 | 1 << 26;

/// GICR_TYPER.Last.
const LAST: usize = 1 << 4;

/// The length of a redistributor with virtual LPIs.
const LENGTH_WITH_VLPIS: usize = 0x4_0000;

enum Register {
    Control,
    Type,
    Waker,
    /// GICR_SETLPIR, GICR_CLRLPIR, GICR_INVALLR: write only, eight bytes.
    LpiCommand,
    InvalidateLpi,
    Properties,
    Pending,
    /// In four bytes, and read only.
    ReadOnly,
    /// In four bytes.
    Word,
    /// In four bytes: interrupt groups.
    Group,
    /// In four bytes or in one.
    Bytes,
    Reserved,
}

#[inline]
const fn register(offset: usize) -> Register {
    match offset {
        0x0..=0x3 => Register::Control,
        // GICR_IIDR; GICR_PIDR4 to GICR_CIDR3.
        0x4..=0x7 | 0xffd0..=0xffff => Register::ReadOnly,
        0x8..=0xf => Register::Type,
        0x14..=0x17 => Register::Waker,
        0x40..=0x43 | 0x48..=0x4b | 0xb0..=0xb3 => Register::LpiCommand,
        0x70..=0x77 => Register::Properties,
        0x78..=0x7f => Register::Pending,
        0xa0..=0xa3 => Register::InvalidateLpi,
        // GICR_IGROUPR0.
        0x1_0080..=0x1_0083 => Register::Group,
        // GICR_STATUSR; GICR_ISENABLER0, ICENABLER0, ISPENDR0, ICPENDR0, ISACTIVER0, ICACTIVER0;
        // ICFGR0 and ICFGR1; IGRPMODR0.
        0x10..=0x13
        | 0x1_0100..=0x1_0103
        | 0x1_0180..=0x1_0183
        | 0x1_0200..=0x1_0203
        | 0x1_0280..=0x1_0283
        | 0x1_0300..=0x1_0303
        | 0x1_0380..=0x1_0383
        | 0x1_0c00..=0x1_0c07
        | 0x1_0d00..=0x1_0d03 => Register::Word,
        // GICR_IPRIORITYR0 to 7.
        0x1_0400..=0x1_041f => Register::Bytes,
        _ => Register::Reserved,
    }
}

impl<L: Lpis> Registers for Gicr<L> {
    #[inline]
    fn read(&self, offset: usize, width: AccessWidth) -> Verdict {
        match (register(offset), width) {
            (
                Register::Control
                | Register::Waker
                | Register::ReadOnly
                | Register::Word
                | Register::Group
                | Register::Bytes,
                Dword,
            )
            | (Register::Bytes, Byte)
            | (Register::Pending, Qword) => Pass(Shared),
            (Register::Type, Dword | Qword) => Shown,
            (Register::Pending, Dword) => Half(Shared),
            // The device's cell.
            (Register::Properties, Qword) => Pass(Alone),
            (Register::Properties, Dword) => Half(Alone),
            _ => Nothing,
        }
    }

    #[inline]
    fn write(&self, offset: usize, width: AccessWidth, value: usize) -> Verdict {
        match (register(offset), width) {
            (Register::Word | Register::Bytes, Dword) | (Register::Bytes, Byte) => Pass(Shared),
            (Register::Control, Dword) if self.trusted => Pass(Shared),
            (Register::Control, Dword) => Keep(ENABLE_LPIS),
            // The host's CPU gets no interrupts while its redistributor sleeps.
            (Register::Waker, Dword) => As(value & !PROCESSOR_SLEEP),
            // As in the distributor: no FIQs.
            (Register::Group, Dword) => Keep(!value),
            // The device only stores the value in its cell.
            (Register::Properties, Qword) => Pass(Alone),
            (Register::Properties, Dword) => Half(Alone),
            // One access of the host's register, but a write of a half may run at the same time.
            (Register::Pending, Qword) if self.trusted => Pass(Alone),
            (Register::Pending, Dword) if self.trusted => Half(Alone),
            (Register::LpiCommand, Dword | Qword) if self.trusted => Pass(Shared),
            (Register::InvalidateLpi, Dword | Qword) => self.invalidate(value),
            _ => Nothing,
        }
    }

    /// GICR_TYPER. Two of its fields determine the address of the next redistributor; the host's values
    /// are for the host's addresses.
    fn shown(&self, typer: usize) -> usize {
        let hidden = match typer & VLPIS != 0 && self.length < LENGTH_WITH_VLPIS {
            true => VLPIS | OF_VLPIS,
            false => 0,
        };
        let last = if self.last.get() { LAST } else { 0 };
        typer & !hidden & !LAST | last
    }
}

impl<L: Lpis> Gicr<L> {
    /// GICR_INVLPIR: the device writes the LPI's byte in the host's configuration table without checking
    /// the bounds, and makes the table if there is none.
    #[cold]
    fn invalidate(&self, value: usize) -> Verdict {
        let interrupt = value & 0xffff_ffff;
        if self.lpis.configured().contains(&interrupt) {
            // The table is not removed once it exists, and the device acquires its lock.
            Pass(Shared)
        } else {
            Nothing
        }
    }
}

/// The number of LPIs for which the device's LPI configuration table has a byte, on a host with this GICD_TYPER.
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
pub(crate) fn lpis_of(gicd_typer: u32) -> usize {
    // IDbits, one less than the number of bits of an interrupt's id.
    let id_bits = (gicd_typer >> 19) & 0x1f;
    let interrupts = 1_usize << (id_bits + 1);
    // The table is of whole pages.
    interrupts.saturating_sub(FIRST_LPI) & !0xfff
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const LPIS: Range<usize> = FIRST_LPI..FIRST_LPI + 0x1000;

    fn gicr(trusted: bool) -> Gicr<Range<usize>> {
        Gicr {
            trusted,
            lpis: LPIS,
            length: 0x2_0000,
            last: Last::alone(),
        }
    }

    #[test]
    fn the_table_of_lpis_is_of_whole_pages_and_may_be_empty() {
        let typer = |id_bits: u32| id_bits << 19 | 0x7ffff;
        assert_eq!(lpis_of(typer(15)), 0x1_0000 - 0x2000);
        assert_eq!(lpis_of(typer(13)), 0x2000);
        assert_eq!(lpis_of(typer(31)), 0x1_0000_0000 - 0x2000);
        for few in [0, 9, 12] {
            assert_eq!(lpis_of(typer(few)), 0, "{few}");
        }
    }

    #[test]
    fn an_lpi_is_invalidated_within_the_table_only() {
        for trusted in [false, true] {
            let write = |value| gicr(trusted).write(0xa0, Qword, value);
            for inside in [LPIS.start, LPIS.end - 1, 1 << 32 | LPIS.start] {
                assert_eq!(write(inside), Pass(Shared), "{inside:#x}");
            }
            for outside in [0, 1, LPIS.start - 1, LPIS.end, 0xffff_ffff, usize::MAX] {
                assert_eq!(write(outside), Nothing, "{outside:#x}");
            }
            let none = Gicr {
                lpis: 0..0,
                ..gicr(trusted)
            };
            assert_eq!(none.write(0xa0, Dword, LPIS.start), Nothing);
        }
    }

    #[test]
    fn only_a_trusted_guest_makes_the_hardware_write_memory() {
        for (offset, width, trusted) in [
            (0x0, Dword, Pass(Shared)),
            (0x78, Qword, Pass(Alone)),
            (0x7c, Dword, Half(Alone)),
            (0x40, Qword, Pass(Shared)),
            (0x48, Qword, Pass(Shared)),
            (0xb0, Qword, Pass(Shared)),
        ] {
            assert_eq!(gicr(true).write(offset, width, 1), trusted, "{offset:#x}");
            let untrusted = if offset == 0 {
                Keep(ENABLE_LPIS)
            } else {
                Nothing
            };
            assert_eq!(
                gicr(false).write(offset, width, 1),
                untrusted,
                "{offset:#x}"
            );
        }
    }

    #[test]
    fn the_host_s_redistributor_stays_awake_and_its_interrupts_in_group_1() {
        assert_eq!(gicr(true).write(0x14, Dword, 0x8000_0003), As(0x8000_0001));
        assert_eq!(
            gicr(true).write(0x1_0080, Dword, 0xffff_0000),
            Keep(!0xffff_0000)
        );
    }

    #[test]
    fn long_registers_have_halves() {
        for (offset, half, whole) in [
            (0x8, Shown, Shown),
            (0x70, Half(Alone), Pass(Alone)),
            (0x78, Half(Shared), Pass(Shared)),
        ] {
            assert_eq!(gicr(false).read(offset, Qword), whole, "{offset:#x}");
            assert_eq!(gicr(false).read(offset, Dword), half, "{offset:#x}");
            assert_eq!(gicr(false).read(offset + 4, Dword), half, "{offset:#x}");
        }
        assert_eq!(gicr(false).write(0x70, Qword, 1), Pass(Alone));
        assert_eq!(gicr(false).write(0x74, Dword, 1), Half(Alone));
        assert_eq!(gicr(false).write(0x8, Qword, 1), Nothing, "GICR_TYPER");
    }

    #[test]
    fn the_type_says_where_the_next_one_is() {
        let typer = 0x0302_0100_0000_0521;
        let gicr = gicr(false);
        assert_eq!(gicr.shown(typer), typer | LAST);
        gicr.last.set(false);
        assert_eq!(gicr.shown(typer | LAST), typer);
        // Without VLPIS, the other bits keep the host's values (zero on real hardware).
        let more = typer | OF_VLPIS;
        assert_eq!(gicr.shown(more), more);
        // With VLPIS there would have to be two more frames.
        assert_eq!(gicr.shown(more | VLPIS), typer);
        let length = LENGTH_WITH_VLPIS;
        assert_eq!(Gicr { length, ..gicr }.shown(more | VLPIS), more | VLPIS);
    }

    #[test]
    fn accesses_that_the_device_does_not_support_are_reserved() {
        for offset in [0x20, 0xa0, 0xc0, 0x100, 0x1_0000, 0x1_0e00, 0x2_0000] {
            for width in [Byte, AccessWidth::Word, Dword, Qword] {
                assert_eq!(gicr(true).read(offset, width), Nothing, "{offset:#x}");
            }
        }
        assert_eq!(gicr(true).write(0x4, Dword, 0), Nothing, "GICR_IIDR");
        assert_eq!(gicr(true).read(0x1_0400, Byte), Pass(Shared));
        assert_eq!(gicr(true).read(0x1_0100, Byte), Nothing);
    }
}
