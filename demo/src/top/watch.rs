//! Rates, from one sample of the VM to the next.

use std::time::{Duration, Instant};

use super::screen::{DeviceRow, MissedRow, Screen};
use crate::{
    counts::{astray, failed, late, overlooked, wrong},
    traffic::Traffic,
    units::{counted, per_second},
    vm::Vm,
};

/// Samples a VM periodically.
pub(super) struct Watch<'vm> {
    vm: &'vm Vm,
    title: &'vm str,
    since: Instant,
    before: Look,
}

/// The counts at one time.
struct Look {
    at: Instant,
    exits: u64,
    changes: u64,
}

impl Look {
    fn at(vm: &Vm) -> Self {
        Self {
            at: Instant::now(),
            exits: vm.exits.iter().map(|exits| exits.total()).sum(),
            changes: vm.changes.get(),
        }
    }
}

impl<'vm> Watch<'vm> {
    /// Takes the first sample.
    pub(super) fn new(vm: &'vm Vm, title: &'vm str) -> Self {
        Self {
            vm,
            title,
            since: Instant::now(),
            before: Look::at(vm),
        }
    }

    /// Takes a sample, and returns the rates since the last one.
    pub(super) fn screen(&mut self) -> Screen {
        let now = Look::at(self.vm);
        let lasted = now.at - self.before.at;
        let traffic = Traffic::of(self.vm, &self.vm.profiles.collect());
        let seconds = counted(self.since.elapsed().as_secs(), "second");
        let map = self.vm.devices.snapshot().to_string();
        let screen = Screen {
            title: format!("{}, for {seconds}; q ends it", self.title),
            counters: self.counters(&now, lasted),
            devices: devices(&traffic, lasted),
            missed: missed(&traffic, lasted),
            map: map.lines().map(String::from).collect(),
        };
        self.before = now;
        screen
    }

    fn counters(&self, now: &Look, lasted: Duration) -> Vec<(&'static str, String)> {
        let vm = self.vm;
        let faults = [wrong, failed, late, astray, overlooked];
        let faults = match faults.iter().map(|count| count(vm)).sum() {
            0 => "nothing wrong".into(),
            faults => counted(faults, "fault"),
        };
        let rate = |now, before| per_second(now - before, lasted).to_string();
        vec![
            ("exits/s", rate(now.exits, self.before.exits)),
            ("changes/s", rate(now.changes, self.before.changes)),
            ("changes", now.changes.to_string()),
            ("hot-adds", vm.arrivals.count().to_string()),
            ("so far", faults),
        ]
    }
}

/// The devices, the most accessed first.
fn devices(traffic: &Traffic, lasted: Duration) -> Vec<DeviceRow> {
    let devices = traffic.devices.iter();
    devices
        .map(|of| DeviceRow {
            name: of.name.clone(),
            range: of.range.clone(),
            reads: per_second(of.accesses.reads, lasted),
            writes: per_second(of.accesses.writes, lasted),
        })
        .collect()
}

/// The missed addresses, the most missed first.
fn missed(traffic: &Traffic, lasted: Duration) -> Vec<MissedRow> {
    let missed = traffic.missed.iter();
    missed
        .map(|of| MissedRow {
            address: of.to_string(),
            rate: per_second(of.count, lasted),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use axdevice::{AccessWidth, GuestPhysAddr};

    use super::*;
    use crate::contract::{MMIO_LATCH, MMIO_UNMAPPED};

    #[test]
    fn each_screen_shows_the_accesses_since_the_last() {
        let vm = Vm::new(1, None).unwrap();
        let mut handle = vm.devices.dispatcher();
        let mut watch = Watch::new(&vm, "1 vCPU as a test");
        for address in [MMIO_LATCH, MMIO_UNMAPPED] {
            let address = GuestPhysAddr::from_usize(address as usize);
            handle
                .handle_mmio_write(address, AccessWidth::Dword, 1)
                .unwrap();
        }
        vm.profiles.hand_over(0, handle.take_profile());
        vm.arrivals.announce();
        let screen = watch.screen();
        assert!(
            screen
                .title
                .starts_with("1 vCPU as a test, for 0 seconds; q")
        );
        assert!(screen.counters.contains(&("hot-adds", "1".into())));
        assert!(
            screen
                .counters
                .contains(&("so far", "nothing wrong".into()))
        );
        assert_eq!(screen.devices.len(), 1);
        assert_eq!(screen.devices[0].name, "MMIO latch");
        assert!(screen.devices[0].writes > 0 && screen.devices[0].reads == 0);
        assert_eq!(screen.missed[0].address, "mmio 0xcfff0000");
        assert!(screen.map[0].contains("0xc0000000..=0xc0000003"));

        vm.exits[0].failed.add_one();
        let screen = watch.screen();
        assert!(screen.devices.is_empty() && screen.missed.is_empty());
        assert!(screen.counters.contains(&("so far", "1 fault".into())));
    }
}
