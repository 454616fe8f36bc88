//! The verdict on a run: all checks passed, something failed, or vCPUs had too little CPU time to finish the
//! checks.

use std::fmt;

use crate::{
    counts::{astray, checks, failed, late, overlooked, wrong},
    progress::Stretch,
    report::seen,
    session::Record,
    stop::Reason,
    units::{counted, time},
    vm::Vm,
};

/// The exit status of a run in which a check failed or that ended with an error.
pub(crate) const FAILED: u8 = 1;
/// The exit status of a run in which vCPUs were starved, and nothing failed.
pub(crate) const STARVED: u8 = 3;
/// The exit status of a run that ended by Ctrl-C, as shells report it.
pub(crate) const INTERRUPTED: u8 = 130;

/// The verdict on a run.
#[derive(Debug, Default)]
pub(crate) struct Verdict {
    /// The checks that failed.
    faults: Vec<String>,
    /// The checks that did not finish because vCPUs were starved.
    starved: Vec<String>,
    /// The reason why the run ended early, and the time in nanoseconds.
    cut: Option<(Reason, u64)>,
    /// The extent of the checks.
    checked: String,
}

/// A task that a vCPU did not finish.
struct Shortfall {
    what: String,
    vcpu: usize,
    stretch: Stretch,
    /// Whether too little CPU time is the reason.
    starved: bool,
}

impl fmt::Display for Shortfall {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            what,
            vcpu,
            stretch,
            ..
        } = self;
        write!(f, "vCPU {vcpu} {what}; {stretch}")
    }
}

impl Verdict {
    /// The verdict on a run of `vm`.
    pub(crate) fn on(vm: &Vm, record: &Record) -> Self {
        let ran = record.ran.as_nanos() as u64;
        let mut verdict = Self {
            cut: record.cut.map(|reason| (reason, ran)),
            checked: checked(vm, record),
            ..Self::default()
        };
        let errors = record.errors.iter().map(|error| format!("{error:#}"));
        verdict.faults.extend(errors);
        verdict.faults.extend(counts(vm));
        verdict.faults.extend(vm.doorbells.fault());
        verdict.judge_removals(record);
        verdict.file(halts(record));
        verdict.file(sights(vm, record));
        verdict
    }

    /// The exit status.
    pub(crate) fn status(&self) -> u8 {
        match self.cut {
            _ if !self.faults.is_empty() => FAILED,
            Some((Reason::Interrupted, _)) => INTERRUPTED,
            _ if !self.starved.is_empty() => STARVED,
            _ => 0,
        }
    }

    /// Records shortfalls of one kind: the first starved one and the first failed one, each with the number of
    /// others.
    fn file(&mut self, shortfalls: Vec<Shortfall>) {
        let (starved, failed): (Vec<_>, Vec<_>) = shortfalls
            .into_iter()
            .partition(|shortfall| shortfall.starved);
        self.starved.extend(first_of(&starved));
        self.faults.extend(first_of(&failed));
    }

    /// Judges removed devices that are still in use: only a vCPU that has not finished a round since can be inside
    /// them.
    fn judge_removals(&mut self, record: &Record) {
        let count = record.changes.pending.len() as u64;
        let held = record.held as u64;
        let devices = |count| counted(count, "removed device");
        if held > 0 {
            let text = format!("{} still in use without a vCPU", devices(held));
            return self.faults.push(text);
        }
        if count == 0 {
            return;
        }
        let what = format!("may be inside a device that was removed ({count} in use)");
        let settling = record.changes.settling.iter().enumerate();
        let suspects = settling.filter(|(_, stretch)| !stretch.has_whole_round());
        let suspects: Vec<_> = suspects
            .map(|(vcpu, stretch)| Shortfall {
                what: what.clone(),
                vcpu,
                stretch: *stretch,
                starved: stretch.is_starved(),
            })
            .collect();
        if suspects.is_empty() {
            let text = "still in use, though every vCPU has done a whole round since";
            return self.faults.push(format!("{} {text}", devices(count)));
        }
        self.file(suspects);
    }
}

/// The faults that are counted, by kind.
fn counts(vm: &Vm) -> Vec<String> {
    let wrong = counted(wrong(vm), "wrong value");
    let kinds = [
        (self::wrong(vm), format!("the guests read {wrong}")),
        (
            failed(vm),
            format!("devices answered with an error {}", times(failed(vm))),
        ),
        (
            late(vm),
            format!("a vCPU was inside a quiescent device {}", times(late(vm))),
        ),
        (
            astray(vm),
            format!("an access reached the wrong device {}", times(astray(vm))),
        ),
        (
            overlooked(vm),
            format!(
                "a read missed a device that had been hot-added {}",
                times(overlooked(vm))
            ),
        ),
    ];
    let found = kinds.into_iter().filter(|(count, _)| *count > 0);
    found.map(|(_, text)| text).collect()
}

fn times(count: u64) -> String {
    counted(count, "time")
}

/// The vCPUs that did not obey the order to halt.
fn halts(record: &Record) -> Vec<Shortfall> {
    let unhalted = record.unhalted.iter();
    unhalted
        .map(|(vcpu, stretch)| Shortfall {
            what: "did not halt".into(),
            vcpu: *vcpu,
            stretch: *stretch,
            // In each whole round it reads the order.
            starved: !stretch.has_whole_round() && stretch.is_starved(),
        })
        .collect()
}

/// The vCPUs that did not see all hot-added devices. A vCPU that missed a device where it read is counted already.
fn sights(vm: &Vm, record: &Record) -> Vec<Shortfall> {
    let added = record.added.len();
    let all = counted(added as u64, "hot-added device");
    let settling = record.settling.iter().enumerate();
    settling
        .filter_map(|(vcpu, settling)| {
            let seen = seen(record, vcpu as u32);
            let missed = vm.exits[vcpu].overlooked.get() > 0;
            (seen < added && !missed).then(|| Shortfall {
                what: format!("saw only {seen} of {all}"),
                vcpu,
                stretch: settling.stretch,
                starved: settling.looked() && settling.stretch.is_starved(),
            })
        })
        .collect()
}

fn first_of(shortfalls: &[Shortfall]) -> Option<String> {
    let first = shortfalls.first()?.to_string();
    Some(match shortfalls.len() as u64 - 1 {
        0 => first,
        others => format!("{first}; the same for {}", counted(others, "other vCPU")),
    })
}

/// The extent of the checks, as text.
fn checked(vm: &Vm, record: &Record) -> String {
    let vcpus = counted(vm.vcpus.into(), "vCPU");
    let values = counted(checks(vm), "value");
    let added = counted(record.added.len() as u64, "hot-added device");
    let changes = counted(record.changes.counts.total(), "change");
    format!("{vcpus} checked {values}, beside {added} and {changes}")
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            faults,
            starved,
            checked,
            ..
        } = self;
        let word = match (faults.is_empty(), starved.is_empty()) {
            (false, _) => "failed",
            (true, false) => "starved",
            (true, true) => "passed",
        };
        match self.cut {
            Some((Reason::Interrupted, after)) if faults.is_empty() => {
                write!(f, "interrupted after {}", time(after))?;
            }
            Some((Reason::Interrupted, after)) => {
                write!(f, "{word}, and interrupted after {}", time(after))?;
            }
            Some((Reason::Quit, after)) => {
                write!(f, "{word}, and ended by q after {}", time(after))?
            }
            None => f.write_str(word)?,
        }
        match (faults.is_empty(), starved.is_empty()) {
            (false, _) => write!(f, ": {}", faults.join("; ")),
            (true, false) => write!(f, ": {}", starved.join("; ")),
            (true, true) if self.cut.is_some() => write!(f, ": nothing wrong so far: {checked}"),
            (true, true) => write!(f, ": {checked}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use board::Gone;

    use super::*;
    use crate::{changer::Changes, contract::Belt, progress::Share};

    fn verdict(faults: &[&str], starved: &[&str], cut: Option<Reason>) -> (String, u8) {
        let own = |texts: &[&str]| texts.iter().map(|text| text.to_string()).collect();
        let verdict = Verdict {
            faults: own(faults),
            starved: own(starved),
            cut: cut.map(|reason| (reason, 1_250_000_000)),
            checked: "1 vCPU checked 9 values".into(),
        };
        (verdict.to_string(), verdict.status())
    }

    /// Five seconds in which a vCPU had little CPU time, although it asked for it or because it did not.
    fn stretch(asked: bool, rounds: u64) -> Stretch {
        let lasted = Duration::from_secs(5);
        Stretch {
            lasted,
            rounds,
            share: Some(Share {
                ran: Duration::from_millis(10),
                idle: if asked { Duration::ZERO } else { lasted },
            }),
        }
    }

    /// A VM with one vCPU, and a record of a run in which `removed` devices were not quiescent.
    fn record(vm: &Vm, removed: u32) -> Record {
        let mut handle = vm.devices.dispatcher();
        let pending = (1..=removed).map(|number| {
            let card = vm.card(Belt::Loose, number, false);
            let name = vm.devices.add_mmio_dev(card.clone()).unwrap();
            handle.refresh();
            let removed = vm.devices.remove(name).unwrap();
            Gone { removed, card }
        });
        Record {
            ran: Duration::from_secs(5),
            added: Vec::new(),
            left_out: 0,
            changes: Changes {
                pending: pending.collect(),
                ..Changes::default()
            },
            samples: Vec::new(),
            cut: None,
            settling: Vec::new(),
            unhalted: Vec::new(),
            held: 0,
            errors: Vec::new(),
        }
    }

    #[test]
    fn a_removed_device_is_in_use_for_want_of_a_cpu_or_not() {
        let vm = Vm::new(1, None).unwrap();
        let mut record = record(&vm, 1);
        for (stretch, status, text) in [
            (
                stretch(true, 1),
                STARVED,
                "starved: vCPU 0 may be inside a device",
            ),
            (
                stretch(false, 1),
                FAILED,
                "failed: vCPU 0 may be inside a device",
            ),
            (
                stretch(true, 2),
                FAILED,
                "failed: 1 removed device still in use, though every vCPU",
            ),
        ] {
            record.changes.settling = vec![stretch];
            let verdict = Verdict::on(&vm, &record);
            assert_eq!(verdict.status(), status);
            assert!(verdict.to_string().starts_with(text), "{verdict}");
        }
        record.held = 1;
        record.changes.settling = vec![stretch(true, 1)];
        let verdict = Verdict::on(&vm, &record);
        assert_eq!(verdict.status(), FAILED);
        assert!(
            verdict
                .to_string()
                .contains("1 removed device still in use without a vCPU")
        );
    }

    #[test]
    fn a_guest_does_not_halt_for_want_of_a_cpu_or_not() {
        let vm = Vm::new(1, None).unwrap();
        let mut record = record(&vm, 0);
        for (stretch, status, text) in [
            (stretch(true, 0), STARVED, "starved: vCPU 0 did not halt; "),
            (stretch(false, 0), FAILED, "failed: vCPU 0 did not halt; "),
            // It read the order, and continued.
            (stretch(true, 2), FAILED, "failed: vCPU 0 did not halt; "),
        ] {
            record.unhalted = vec![(0, stretch)];
            let verdict = Verdict::on(&vm, &record);
            assert_eq!(verdict.status(), status);
            assert!(verdict.to_string().starts_with(text), "{verdict}");
        }
    }

    #[test]
    fn a_failure_outweighs_starvation() {
        let vm = Vm::new(1, None).unwrap();
        let mut record = record(&vm, 0);
        record.unhalted = vec![(0, stretch(true, 0))];
        record.errors.push(anyhow::anyhow!("no such luck"));
        let verdict = Verdict::on(&vm, &record);
        assert_eq!(verdict.status(), FAILED);
        assert_eq!(verdict.to_string(), "failed: no such luck");
    }

    #[test]
    fn each_verdict_has_its_word_and_its_status() {
        let (interrupted, quit) = (Some(Reason::Interrupted), Some(Reason::Quit));
        for (faults, starved, cut, text, status) in [
            (&[][..], &[][..], None, "passed: 1 vCPU checked 9 values", 0),
            (&[], &["s"], None, "starved: s", STARVED),
            (&["f", "g"], &["s"], None, "failed: f; g", FAILED),
            (
                &[],
                &[],
                interrupted,
                "interrupted after 1.25 s: nothing wrong so far: 1 vCPU checked 9 values",
                INTERRUPTED,
            ),
            (
                &["f"],
                &[],
                interrupted,
                "failed, and interrupted after 1.25 s: f",
                FAILED,
            ),
            (
                &[],
                &[],
                quit,
                "passed, and ended by q after 1.25 s: nothing wrong so far: 1 vCPU checked 9 values",
                0,
            ),
            (
                &[],
                &["s"],
                quit,
                "starved, and ended by q after 1.25 s: s",
                STARVED,
            ),
        ] {
            assert_eq!(verdict(faults, starved, cut), (text.into(), status));
        }
    }
}
