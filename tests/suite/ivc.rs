//! Random sequences of IVC allocations and releases, held against a naive list of pages and against
//! the allocator of crate `axdevice` 0.4.10.

use ax_errno::AxError;
use axaddrspace::GuestPhysAddr;
use axdevice::{AxVmDeviceConfig, AxVmDevices};
use axdevice_0_4_10 as published;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use proptest::{collection::vec, prelude::*};

use crate::common::cases;

const PAGE: usize = 0x1000;
const BASE: usize = 0x7000_0000;

/// So many pages are nowhere. 0.4.10 doubles the size, which must not overflow.
const HUGE: usize = usize::MAX / 2 / PAGE;

/// The model: whether each page is taken.
struct Pages(Vec<bool>);

impl Pages {
    /// The smallest free piece that holds `count` pages, the lowest of equals.
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

    /// The pages of a release that frees something: its first page and how many.
    ///
    /// Any other is the difference from 0.4.10: there, to release what is not wholly allocated
    /// panics or corrupts the list of free pieces, so that it is not asked. Ours refuses it. One that
    /// is not on a page boundary is of this kind, since no page is then wholly released.
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
    /// So many pages and bytes.
    Alloc(usize, usize),
    /// One of the allocations that were made, without so many pages at either end.
    ReleaseOne(usize, usize, usize),
    /// Whatever.
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

/// The three of them, side by side.
struct Trio {
    ours: AxVmDevices,
    pages: Pages,
    oracle: published::AxVmDevices,
    made: Vec<(usize, usize)>,
}

impl Trio {
    fn new(count: usize) -> Self {
        let configs = vec![EmulatedDeviceConfig {
            name: "ivc".into(),
            base_gpa: BASE,
            length: count * PAGE,
            emu_type: EmulatedDeviceType::IVCChannel,
            ..Default::default()
        }];
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
                // What was released before, or in part, may be released again: that is refused.
                let (addr, size) = self.made[which % self.made.len()];
                let size = size.saturating_sub((front + back) * PAGE);
                self.release(addr + front * PAGE, size)
            }
            Op::Release(addr, size) => self.release(addr, size),
        }
    }

    /// Nothing that was refused has changed anything: the free pages are those of the model.
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
