//! The meaning of a configuration entry's arguments, and checks that its devices can be made. The device crates do not
//! check: they panic.

use axvmconfig::EmulatedDeviceConfig;
use busmap::{BusId, Span};

use crate::{
    config::ConfigFault::{
        self, DoesNotFit, IvcTooLong, IvcUnaligned, MissingArgument, NoSuchCpu, PlicTooSmall,
        TooManyRedistributors,
    },
    ivc,
    refusal::Refusal,
};

/// The number of redistributors that can be distinguished: `Processor_Number` in GICR_TYPER has 16 bits (Arm GIC
/// architecture specification, GICv3 and GICv4, IHI 0069, "GICR_TYPER").
const MAX_REDISTRIBUTORS: usize = 1 << 16;

/// The largest end of an Arm host's physical address space: an address has 52 bits at most (Arm Architecture Reference
/// Manual, DDI 0487, "FEAT_LPA").
const ARM_PHYSICAL_END: usize = 1 << 52;

/// The length of an ITS: two frames of 64 KiB (IHI 0069, "The ITS register map").
const ITS_LENGTH: usize = 0x2_0000;

/// The length that `riscv_vplic` requires beside the contexts: it counts from the claim/complete register of
/// context 0, at 0x20_0004 (RISC-V PLIC specification 1.0.0, "Memory Map"), one context too many.
const PLIC_LENGTH: usize = 0x20_0005;

/// The stride of the PLIC contexts' registers (same specification).
const PLIC_CONTEXT_STRIDE: usize = 0x1000;

/// The bus of every device that this crate builds from an entry.
const MMIO: BusId = BusId::Mmio;

/// Checks that `[base_gpa, base_gpa + length)` is a range and is not empty.
pub(crate) fn check_range(config: &EmulatedDeviceConfig) -> Result<(), Refusal> {
    let start = config.base_gpa;
    let end = start.wrapping_add(config.length);
    match config.length {
        0 => Err(Refusal::Empty {
            bus: MMIO,
            at: start,
        }),
        _ if end < start => Err(Refusal::Wrapping {
            bus: MMIO,
            start,
            end,
        }),
        _ => Ok(()),
    }
}

/// The argument at `position`. Its name is `name`.
fn argument(
    config: &EmulatedDeviceConfig,
    position: usize,
    name: &'static str,
) -> Result<usize, ConfigFault> {
    let argument = config.cfg_list.get(position).copied();
    argument.ok_or(MissingArgument { position, name })
}

/// A GPPT redistributor for one vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Redistributor {
    pub(crate) base: usize,
    pub(crate) pcpu_id: usize,
}

/// The redistributors of a GPPT redistributor entry, one for each vCPU.
pub(crate) fn redistributors(
    config: &EmulatedDeviceConfig,
) -> Result<impl Iterator<Item = Redistributor> + use<>, ConfigFault> {
    let cpu_num = argument(config, 0, "cpu_num")?;
    let stride = argument(config, 1, "stride")?;
    let pcpu_id = argument(config, 2, "pcpu_id")?;
    check_range(config)?;
    if cpu_num > MAX_REDISTRIBUTORS {
        return Err(TooManyRedistributors {
            cpu_num,
            at_most: MAX_REDISTRIBUTORS,
        });
    }
    let (base, length) = (config.base_gpa, config.length);
    if let Some(last) = cpu_num.checked_sub(1) {
        let guest_end = last.checked_mul(stride).and_then(|to| to.checked_add(base));
        guest_end
            .and_then(|end| end.checked_add(length))
            .ok_or(DoesNotFit {
                what: "cpu_num times stride",
            })?;
        let pcpu_id = pcpu_id.saturating_add(last);
        let host_end = pcpu_id
            .checked_add(1)
            .and_then(|cpus| cpus.checked_mul(length));
        host_end
            .filter(|&end| end <= ARM_PHYSICAL_END)
            .ok_or(NoSuchCpu { pcpu_id })?;
    }
    // No base wraps, because the base of the last redistributor does not.
    Ok((0..cpu_num).map(move |i| Redistributor {
        base: base + i * stride,
        pcpu_id: pcpu_id + i,
    }))
}

/// The base of the host's ITS that a GPPT ITS entry passes through.
pub(crate) fn host_gits_base(config: &EmulatedDeviceConfig) -> Result<usize, ConfigFault> {
    let base = argument(config, 0, "host_gits_base")?;
    check_range(config)?;
    // The device accesses all ITS_LENGTH bytes of the host's registers, and more if the guest's range is longer.
    let end = base.checked_add(config.length.max(ITS_LENGTH));
    end.filter(|&end| end <= ARM_PHYSICAL_END)
        .ok_or(DoesNotFit {
            what: "host_gits_base",
        })?;
    Ok(base)
}

/// Returns the number of contexts of a PPPT global entry.
pub(crate) fn plic_contexts(config: &EmulatedDeviceConfig) -> Result<usize, ConfigFault> {
    let context_num = argument(config, 0, "context_num")?;
    check_range(config)?;
    let at_least = context_num
        .checked_mul(PLIC_CONTEXT_STRIDE)
        .and_then(|contexts| contexts.checked_add(PLIC_LENGTH))
        .ok_or(DoesNotFit {
            what: "context_num",
        })?;
    if config.length < at_least {
        return Err(PlicTooSmall {
            length: config.length,
            at_least,
        });
    }
    Ok(context_num)
}

/// The range that an IVC entry sets aside.
pub(crate) fn ivc_range(config: &EmulatedDeviceConfig) -> Result<Span, ConfigFault> {
    check_range(config)?;
    let (base, length) = (config.base_gpa, config.length);
    let range =
        Span::with_length(base as u64, length as u64).ok_or(DoesNotFit { what: "length" })?;
    if ivc::pages(base).and(ivc::pages(length)).is_none() {
        return Err(IvcUnaligned { range });
    }
    if length > ivc::MAX_LENGTH {
        return Err(IvcTooLong {
            length,
            at_most: ivc::MAX_LENGTH,
        });
    }
    Ok(range)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    fn config(base_gpa: usize, length: usize, cfg_list: &[usize]) -> EmulatedDeviceConfig {
        EmulatedDeviceConfig {
            base_gpa,
            length,
            cfg_list: cfg_list.to_vec(),
            ..Default::default()
        }
    }

    fn gicr(
        base: usize,
        length: usize,
        args: &[usize],
    ) -> Result<Vec<(usize, usize)>, ConfigFault> {
        let all = redistributors(&config(base, length, args))?;
        Ok(all.map(|r| (r.base, r.pcpu_id)).collect())
    }

    fn plic(base: usize, length: usize, args: &[usize]) -> Result<usize, ConfigFault> {
        plic_contexts(&config(base, length, args))
    }

    const GICR: usize = 0x80a_0000;
    const FRAMES: usize = 0x2_0000;

    #[test]
    fn one_redistributor_for_each_vcpu() {
        let two = gicr(GICR, FRAMES, &[2, FRAMES, 4]);
        assert_eq!(two, Ok([(GICR, 4), (GICR + FRAMES, 5)].to_vec()));
        assert_eq!(gicr(GICR, FRAMES, &[0, FRAMES, 0]), Ok([].to_vec()));
        assert_eq!(
            gicr(GICR, FRAMES, &[1, usize::MAX, 0]),
            Ok([(GICR, 0)].to_vec())
        );
    }

    #[test]
    fn every_missing_argument_is_named() {
        for (position, name) in ["cpu_num", "stride", "pcpu_id"].into_iter().enumerate() {
            let fault = gicr(GICR, FRAMES, &[1, FRAMES, 0][..position]);
            assert_eq!(fault, Err(MissingArgument { position, name }));
        }
        let name = "context_num";
        assert_eq!(
            plic(0, 0x40_0000, &[]),
            Err(MissingArgument { position: 0, name })
        );
        let name = "host_gits_base";
        let fault = host_gits_base(&config(0, 0x2_0000, &[]));
        assert_eq!(fault, Err(MissingArgument { position: 0, name }));
    }

    #[test]
    fn redistributors_that_do_not_fit_are_refused() {
        let guest = Err(DoesNotFit {
            what: "cpu_num times stride",
        });
        assert_eq!(gicr(GICR, FRAMES, &[3, usize::MAX / 2, 0]), guest);
        assert_eq!(gicr(usize::MAX - FRAMES, FRAMES, &[2, 1, 0]), guest);
        let beyond = ARM_PHYSICAL_END / FRAMES;
        for (cpu_num, first, pcpu_id) in [
            (1, usize::MAX, usize::MAX),
            (2, usize::MAX, usize::MAX),
            (2, beyond - 1, beyond),
        ] {
            let fault = gicr(GICR, FRAMES, &[cpu_num, FRAMES, first]);
            assert_eq!(fault, Err(NoSuchCpu { pcpu_id }));
        }
        assert!(gicr(GICR, FRAMES, &[1, FRAMES, beyond - 1]).is_ok());
        let fault = gicr(GICR, 1, &[usize::MAX, 1, 0]);
        assert!(matches!(
            fault,
            Err(TooManyRedistributors {
                cpu_num: usize::MAX,
                ..
            })
        ));
    }

    #[test]
    fn empty_and_wrapping_ranges_are_refused() {
        let empty = Err(Refusal::Empty { bus: MMIO, at: 8 }.into());
        assert_eq!(gicr(8, 0, &[1, FRAMES, 0]), empty);
        assert_eq!(
            host_gits_base(&config(8, 0, &[1])),
            empty.clone().map(|_: Vec<_>| 0)
        );
        let (start, end) = (usize::MAX - 4, 3);
        let bus = MMIO;
        let wraps = Refusal::Wrapping { bus, start, end };
        assert_eq!(check_range(&config(start, 8, &[])), Err(wraps));
        assert_eq!(plic(start, 8, &[1]), Err(wraps.into()));
        assert_eq!(check_range(&config(usize::MAX - 8, 8, &[])), Ok(()));
    }

    #[test]
    fn an_ivc_range_is_of_whole_pages_and_not_too_long() {
        let range = |base, length| ivc_range(&config(base, length, &[]));
        let span = |first, last| Span::new(first, last).unwrap();
        let bus = MMIO;
        assert_eq!(
            range(0x7000_0000, 0x1000),
            Ok(span(0x7000_0000, 0x7000_0fff))
        );
        let at = 0x7000_0000;
        assert_eq!(range(at, 0), Err(Refusal::Empty { bus, at }.into()));
        for (base, length) in [(0x7000_0800, 0x1000), (0x7000_0000, 0x1800)] {
            let range_of_it = Span::with_length(base as u64, length as u64).unwrap();
            let unaligned = IvcUnaligned { range: range_of_it };
            assert_eq!(range(base, length), Err(unaligned));
        }
        let at_most = ivc::MAX_LENGTH;
        assert_eq!(range(0, at_most), Ok(span(0, at_most as u64 - 1)));
        let length = at_most + 0x1000;
        assert_eq!(range(0, length), Err(IvcTooLong { length, at_most }));
        let (start, end) = (usize::MAX - 0xfff, 0x1000);
        let wraps = Refusal::Wrapping { bus, start, end };
        assert_eq!(range(start, 0x2000), Err(wraps.into()));
    }

    #[test]
    fn a_host_its_must_fit() {
        let its = |length, base| host_gits_base(&config(0x808_0000, length, &[base]));
        assert_eq!(its(0x2_0000, 0x808_0000), Ok(0x808_0000));
        let fault = Err(DoesNotFit {
            what: "host_gits_base",
        });
        assert_eq!(its(0x2_0000, usize::MAX), fault);
        assert_eq!(its(0x2_0000, usize::MAX - 0x2_0000), fault);
        assert_eq!(its(1, ARM_PHYSICAL_END - ITS_LENGTH + 1), fault);
        assert_eq!(its(1 << 50, ARM_PHYSICAL_END - (1 << 50) + 1), fault);
        assert!(its(1, ARM_PHYSICAL_END - ITS_LENGTH).is_ok());
    }

    #[test]
    fn a_plic_must_hold_its_contexts() {
        assert_eq!(plic(0xc00_0000, 0x20_1005, &[1]), Ok(1));
        let small = PlicTooSmall {
            length: 0x20_1004,
            at_least: 0x20_1005,
        };
        assert_eq!(plic(0xc00_0000, 0x20_1004, &[1]), Err(small));
        let fault = Err(DoesNotFit {
            what: "context_num",
        });
        assert_eq!(plic(0, 0x40_0000, &[usize::MAX]), fault);
    }
}
