//! CPU 0 controls the run: it waits for the other CPUs, makes the changes during the run, halts the guests, and ends
//! the machine.

use spin::Mutex;

use crate::{arch, changer::Changer, console::line, cpu::Cpu, options::Sabotage, report, vm::Vm};

/// The time limits, at the end, for the vCPUs to see the last devices, and then to halt and to leave the removed
/// devices, in nanoseconds. There may be many CPUs on each core of the host.
const SETTLING: u64 = 60_000_000_000;

/// The phase of a run.
#[derive(Clone, Copy)]
enum Phase {
    /// Not all vCPUs have begun.
    Starting,
    /// Devices are added and changed, since this time.
    Running(u64),
    /// The vCPUs must see all devices, since this time.
    Settling(u64),
    /// The guests are ordered to halt.
    Stopping,
}

struct Conductor {
    vm: &'static Vm,
    changer: Changer,
    phase: Phase,
}

/// Used by CPU 0, outside its interrupt handler.
static CONDUCTOR: Mutex<Option<Conductor>> = Mutex::new(None);

/// Makes the changer, before any vCPU runs.
pub(crate) fn prepare(vm: &'static Vm) {
    *CONDUCTOR.lock() = Some(Conductor {
        vm,
        changer: Changer::new(vm),
        phase: Phase::Starting,
    });
}

/// The work of CPU 0 between two exits of its guest.
pub(crate) fn conduct() {
    if let Some(conductor) = CONDUCTOR.lock().as_mut() {
        conductor.go_on();
    }
}

/// The work of CPU 0 when its guest has halted: it waits for the others, and ends the machine.
pub(crate) fn finish() -> ! {
    let mut conductor = CONDUCTOR.lock();
    let Conductor { vm, changer, .. } = conductor.as_mut().expect("a conductor");
    let since = arch::nanos();
    let halted = || (0..vm.vcpus).all(|vcpu| Cpu::at(vcpu as usize).is_halted());
    let limit = if vm.sabotages(board::Sabotage::Hold) {
        SETTLING / 20
    } else {
        SETTLING
    };
    while (!halted() || changer.pending() > 0) && arch::nanos() - since < limit {
        changer.look();
    }
    let verdict = match halted() {
        true => report::print(vm, changer),
        false => Err("a guest does not halt"),
    };
    match verdict {
        Ok(()) => {
            line!("OK");
            arch::exit(true)
        }
        Err(why) => {
            line!("FAILED: {why}");
            arch::exit(false)
        }
    }
}

impl Conductor {
    fn go_on(&mut self) {
        let now = arch::nanos();
        match self.phase {
            Phase::Starting => {
                if (0..self.vm.vcpus).all(|vcpu| Cpu::at(vcpu as usize).exits() > 0) {
                    line!("{} vCPUs run", self.vm.vcpus);
                    self.phase = Phase::Running(now);
                }
            }
            Phase::Running(since) => {
                self.changer.change(now);
                let length = self.vm.options.length.as_nanos() as u64;
                if now - since >= length {
                    self.phase = Phase::Settling(now);
                }
                self.sabotage(now - since);
            }
            Phase::Settling(since) => {
                self.changer.look();
                if self.changer.adder().all_seen()
                    || now - since > SETTLING
                    || self.vm.sabotages(board::Sabotage::Unseen)
                {
                    self.vm.mailbox.stop();
                    self.phase = Phase::Stopping;
                }
            }
            Phase::Stopping => self.changer.look(),
        }
    }

    /// After a second, makes the fault, if one was requested.
    fn sabotage(&self, ran: u64) {
        if ran < 1_000_000_000 {
            return;
        }
        assert!(!self.vm.goes_wrong(Sabotage::Panic), "sabotaged");
        if self.vm.goes_wrong(Sabotage::Silence) {
            arch::stop_for_good();
        }
    }
}
