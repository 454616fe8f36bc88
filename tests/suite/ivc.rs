//! The IVC range: no device gets into it. Random sequences of allocations and releases are compared with a naive list
//! of pages and with the allocator of crate `axdevice` 0.4.10.

use ax_errno::AxError;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDeviceConfig, AxVmDevices, DeviceBound, Refusal, Span, VmDevices};
use axdevice_0_4_10 as published;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use proptest::{collection::vec, prelude::*};
use support::{Bus, Journal, Recorder, answer, span};

use crate::common::cases;

const PAGE: usize = 0x1000;
const BASE: usize = 0x7000_0000;

/// No memory has this many pages. 0.4.10 doubles the size, which must not overflow.
const HUGE: usize = usize::MAX / 2 / PAGE;

/// The model: whether each page is taken.
struct Pages(Vec<bool>);

impl Pages {
    /// The smallest free piece that holds `count` pages, the lowest of equal pieces.
    fn best_fit(&self, count: usize) -> Option<usize> {
        let free = |page: usize| self.0.get(page) == Some(&false);
        let starts = (0..self.0.len()).filter(|&p| free(p) && (p == 0 || !free(p - 1)));
        let pieces = starts.map(|first| (first, (first..).take_while(|&p| free(p)).count()));
        let fitting = pieces.filter(|&(_, length)| length >= count);
        fitting
            .min_by_key(|&(first, length)| (length, first))
            .map(|(first, _)| first)
    }

    fn set(&mut self, first: usize, count: usize, taken: bool) {
        self.0[first..first + count].fill(taken);
    }

    /// The pages of a release that frees something: the first page and their number.
    ///
    /// Any other release is the difference from 0.4.10. There, a release of pages that are not all allocated panics or
    /// corrupts the list of free pieces, so this test does not make it there. Ours refuses it. A release that is not on
    /// a page boundary is of this kind, because no page is then wholly released.
    fn released(&self, addr: usize, size: usize) -> Option<(usize, usize)> {
        let offset = addr.checked_sub(BASE)?;
        let (first, count) = (offset / PAGE, size / PAGE);
        let aligned = offset.is_multiple_of(PAGE) && size.is_multiple_of(PAGE) && count > 0;
        let end = first
            .checked_add(count)
            .filter(|&end| end <= self.0.len())?;
        let all_taken = self.0[first..end].iter().all(|&taken| taken);
        (aligned && all_taken).then_some((first, count))
    }
}

#[derive(Clone, Debug)]
enum Op {
    /// A number of pages and bytes.
    Alloc(usize, usize),
    /// One of the earlier allocations, without this number of pages at either end.
    ReleaseOne(usize, usize, usize),
    /// An arbitrary address and size.
    Release(usize, usize),
}

fn op() -> impl Strategy<Value = Op> {
    let odd = prop_oneof![12 => Just(0), 1 => 1..PAGE];
    let count = prop_oneof![6 => 0..6_usize, 2 => 0..70_usize, 1 => Just(HUGE)];
    let addr = prop_oneof![
        6 => (0..150_usize).prop_map(|page| BASE + page * PAGE),
        2 => (0..150 * PAGE).prop_map(|offset| BASE + offset),
        1 => prop_oneof![Just(0), Just(BASE - PAGE), Just(usize::MAX - PAGE + 1)],
    ];
    let size = (count.clone(), odd.clone()).prop_map(|(count, odd)| count * PAGE + odd);
    let inset = prop_oneof![4 => Just(0), 1 => 0..3_usize];
    prop_oneof![
        4 => (count, odd).prop_map(|(count, odd)| Op::Alloc(count, odd)),
        3 => (any::<usize>(), inset.clone(), inset)
            .prop_map(|(which, front, back)| Op::ReleaseOne(which, front, back)),
        2 => (addr, size).prop_map(|(addr, size)| Op::Release(addr, size)),
    ]
}

/// An entry that sets this number of pages aside.
fn entry(count: usize) -> EmulatedDeviceConfig {
    EmulatedDeviceConfig {
        name: "ivc".into(),
        base_gpa: BASE,
        length: count * PAGE,
        emu_type: EmulatedDeviceType::IVCChannel,
        ..Default::default()
    }
}

/// The three of them, side by side.
struct Trio {
    ours: AxVmDevices,
    pages: Pages,
    oracle: published::AxVmDevices,
    made: Vec<(usize, usize)>,
}

impl Trio {
    fn new(count: usize) -> Self {
        let configs = vec![entry(count)];
        Self {
            ours: AxVmDevices::new(AxVmDeviceConfig::new(configs.clone())),
            pages: Pages(vec![false; count]),
            oracle: published::AxVmDevices::new(published::AxVmDeviceConfig::new(configs)),
            made: Vec::new(),
        }
    }

    fn alloc(&mut self, count: usize, odd: usize) -> Result<(), TestCaseError> {
        let size = count.wrapping_mul(PAGE) + odd;
        let expected = match self.pages.best_fit(count) {
            _ if odd > 0 || count == 0 => Err(AxError::InvalidInput),
            None => Err(AxError::NoMemory),
            Some(first) => Ok(GuestPhysAddr::from(BASE + first * PAGE)),
        };
        prop_assert_eq!(self.ours.alloc_ivc_channel(size), expected);
        prop_assert_eq!(self.oracle.alloc_ivc_channel(size), expected);
        if let Ok(addr) = expected {
            let first = (addr.as_usize() - BASE) / PAGE;
            self.pages.set(first, count, true);
            self.made.push((addr.as_usize(), size));
        }
        Ok(())
    }

    fn release(&mut self, addr: usize, size: usize) -> Result<(), TestCaseError> {
        let ours = self.ours.release_ivc_channel(addr.into(), size);
        let Some((first, count)) = self.pages.released(addr, size) else {
            prop_assert_eq!(ours, Err(AxError::InvalidInput));
            return Ok(());
        };
        prop_assert_eq!(ours, Ok(()));
        prop_assert_eq!(self.oracle.release_ivc_channel(addr.into(), size), Ok(()));
        self.pages.set(first, count, false);
        Ok(())
    }

    fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        match op {
            Op::Alloc(count, odd) => self.alloc(count, odd),
            Op::ReleaseOne(..) if self.made.is_empty() => Ok(()),
            Op::ReleaseOne(which, front, back) => {
                // A channel that was released before, or in part, may be released again: that is refused.
                let (addr, size) = self.made[which % self.made.len()];
                let size = size.saturating_sub((front + back) * PAGE);
                self.release(addr + front * PAGE, size)
            }
            Op::Release(addr, size) => self.release(addr, size),
        }
    }

    /// No refused operation has changed anything: the free pages are those of the model.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        let free = self.pages.0.iter().filter(|&&taken| !taken).count();
        for _ in 0..=free {
            self.alloc(1, 0)?;
        }
        prop_assert!(self.pages.0.iter().all(|&taken| taken));
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(600),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn channels_are_those_of_the_model_and_of_the_published_crate(
        count in 1..140_usize,
        ops in vec(op(), 1..100),
    ) {
        let mut trio = Trio::new(count);
        for op in ops {
            trio.run(op)?;
        }
        trio.drain()?;
    }
}

/// A registry with an IVC range of 16 pages, and that range.
fn with_ivc<B: DeviceBound>() -> (VmDevices<B>, Span) {
    let config = AxVmDeviceConfig::new(vec![entry(16)]);
    let builder = VmDevices::builder().config(config);
    let devices = builder.unmapped(axdevice::Unmapped::Error).build().unwrap();
    (devices, span(BASE, BASE + 16 * PAGE - 1))
}

type Mmio = GuestPhysAddrRange;

fn memory(first: usize, last: usize) -> std::sync::Arc<Recorder<Mmio>> {
    Recorder::silent(1, first, last)
}

#[test]
fn no_device_is_added_moved_or_mapped_into_the_ivc_range() {
    let (devices, ivc) = with_ivc::<axdevice::ThreadSafe>();
    let recorder = Recorder::new(0, Mmio::covering(0, 0xff), &Journal::default());
    let id = devices.add_mmio_dev(recorder.clone()).unwrap();
    let map = devices.snapshot().to_string();
    let last = BASE + 16 * PAGE - 1;
    for (first, last) in [
        (BASE, BASE),
        (last, last),
        (BASE - 1, BASE),
        (last, last + 1),
        (BASE + PAGE, BASE + 2 * PAGE - 1),
        (0x100, Mmio::HIGHEST),
    ] {
        let refusal = Refusal::Ivc {
            wanted: span(first, last),
            ivc,
        };
        let range = Mmio::covering(first, last);
        let device = memory(first, last);
        let error = devices.add_mmio_dev(device.clone()).unwrap_err();
        assert_eq!(error.refusal(), refusal);
        assert_eq!(AxError::from(error), AxError::AlreadyExists);
        assert_eq!(std::sync::Arc::strong_count(&device), 1);
        assert_eq!(devices.map(id, range), Err(refusal));
        assert_eq!(devices.move_to(id, range), Err(refusal));
        recorder.set_range(range);
        assert_eq!(devices.reindex(id), Err(refusal));
        let update = devices.update(|batch| batch.add_mmio_dev(memory(first, last)));
        assert_eq!(update.unwrap_err(), refusal);
        let update = devices.update(|batch| {
            batch.remove(id)?;
            let id = batch.add_mmio_dev(memory(0, 0))?;
            batch.move_to(id, range)
        });
        assert_eq!(update.unwrap_err(), refusal);
        assert_eq!(devices.snapshot().to_string(), map);
    }
    // Only the result of an update counts.
    let inside = Mmio::covering(BASE, BASE);
    let update = devices.update(|batch| {
        batch.map(id, inside)?;
        batch.unmap(id, inside)
    });
    assert!(update.is_ok());
    assert_eq!(
        Refusal::Ivc {
            wanted: span(BASE, BASE),
            ivc
        }
        .to_string(),
        "on bus mmio, 0x70000000..=0x70000000 overlaps the IVC range 0x70000000..=0x7000ffff"
    );
}

#[test]
fn devices_may_lie_beside_the_ivc_range_and_on_other_buses() {
    let (devices, _) = with_ivc::<axdevice::Unbound>();
    let last = BASE + 16 * PAGE - 1;
    devices.add_mmio_dev(memory(0, BASE - 1)).unwrap();
    devices
        .add_mmio_dev(memory(last + 1, Mmio::HIGHEST))
        .unwrap();
    let register = Recorder::<SysRegAddrRange>::silent(2, BASE, BASE);
    devices.add_sys_reg_dev(register).unwrap();
    let ports = Recorder::<PortRange>::silent(3, 0, PortRange::HIGHEST);
    devices.add_port_dev(ports).unwrap();
    let map = "mmio     0x0..=0x6fffffff #1\n\
               ivc      0x70000000..=0x7000ffff ivc\n\
               mmio     0x70010000..=0xfffffffffffffffe #2\n\
               sys_reg  0x70000000..=0x70000000 #3\n\
               port     0x0..=0xffff #4\n";
    assert_eq!(devices.snapshot().to_string(), map);
    assert_eq!(devices.snapshot().mmio().count(), 2);
    // No device answers there.
    let read = Mmio::read(&devices, BASE, AccessWidth::Byte);
    assert_eq!(read, Err(AxError::NotFound));
    assert!(devices.find_mmio_dev(BASE.into()).is_none());
    let last_before = Mmio::read(&devices, BASE - 1, AccessWidth::Qword);
    assert!(last_before.is_err(), "it would run into the range");
}

#[test]
fn iter_mut_cannot_put_a_device_into_the_ivc_range() {
    let (mut devices, _) = with_ivc::<axdevice::Unbound>();
    devices.add_mmio_dev(memory(0, 0xff)).unwrap();
    let map = devices.snapshot().to_string();
    for (first, last) in [(BASE, BASE), (BASE - 1, BASE)] {
        *devices.iter_mut_mmio_dev().next().unwrap() = Recorder::<Mmio>::silent(2, first, last);
        let read = Mmio::read(&devices, 8, AccessWidth::Qword);
        assert_eq!(read, Ok(answer(1, 8)), "the old device is back");
        assert_eq!(devices.snapshot().to_string(), map);
    }
    *devices.iter_mut_mmio_dev().next().unwrap() = Recorder::<Mmio>::silent(2, BASE - 1, BASE - 1);
    assert!(Mmio::read(&devices, BASE - 1, AccessWidth::Byte).is_ok());
    // The tables that were published then also keep the range free.
    assert!(devices.add_mmio_dev(memory(BASE, BASE)).is_err());
}
