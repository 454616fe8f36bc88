//! The run as the main thread sees it: it hot-adds, samples the counters and shows progress, beside a
//! thread that changes devices, until time is up, the user ends it, or a vCPU does.

use std::{
    io::{IsTerminal as _, stderr},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    adder::{Added, Adder},
    changer::{Changer, Changes},
    options::Options,
    vcpus::Vcpus,
    vm::Vm,
};

/// The shortest time from one sample of the counters to the next.
const SAMPLING: Duration = Duration::from_millis(100);
/// About how many samples are taken at most.
const SAMPLES: u32 = 200;
/// The longest time between two looks at whether the run is over.
const TICK: Duration = Duration::from_millis(10);
/// How long the vCPUs may take, at the end, to see the devices that were added last.
const SETTLING: Duration = Duration::from_secs(5);

/// What was seen of a run.
pub(crate) struct Record {
    /// How long the vCPUs ran.
    pub(crate) ran: Duration,
    pub(crate) added: Vec<Added>,
    pub(crate) changes: Changes,
    pub(crate) samples: Vec<Sample>,
    /// What went wrong, if anything did.
    pub(crate) ended: Result<()>,
}

/// How many exits each vCPU had had at one time.
pub(crate) struct Sample {
    /// Since the VM was made.
    pub(crate) at: Duration,
    pub(crate) exits: Vec<u64>,
}

impl Sample {
    fn of(vm: &Vm) -> Self {
        let exits = vm.exits.iter().map(|exits| exits.total());
        Self {
            at: vm.epoch.elapsed(),
            exits: exits.collect(),
        }
    }
}

/// Hot-adds to `vm`, and has `changer` change its devices, while `vcpus` run; then ends them.
pub(crate) fn conduct(
    options: &Options,
    changer: Changer<'_>,
    vm: &Vm,
    vcpus: Vcpus,
    interrupted: &AtomicBool,
) -> Result<Record> {
    let length = Duration::from_secs(options.seconds.into());
    let mut adder = Adder::new(vm, options.adds_per_second, options.adds()?);
    let mut samples = vec![Sample::of(vm)];
    let over = AtomicBool::new(false);

    let start = Instant::now();
    let (added, changed) = thread::scope(|scope| {
        let changing = scope.spawn(|| changer.run(&over, || vcpus.kick()));
        let failed = || vcpus.any_ended() || changing.is_finished();
        let going_on = || !interrupted.load(Ordering::Relaxed) && !failed();
        let added = hot_add(&mut adder, &mut samples, length, going_on);
        let settled = Instant::now() + SETTLING;
        while !adder.all_seen() && !failed() && Instant::now() < settled {
            thread::sleep(TICK);
        }
        over.store(true, Ordering::Relaxed);
        (added, joined(changing))
    });
    let ended = vcpus.stop();
    Ok(Record {
        ran: start.elapsed(),
        added: adder.into_added(),
        changes: changed?,
        samples,
        ended: ended.and(added),
    })
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let panicked = |_| anyhow!("the thread that changes devices panicked");
    thread.join().map_err(panicked)?
}

/// Hot-adds for `length`, with samples of the counters.
fn hot_add(
    adder: &mut Adder<'_>,
    samples: &mut Vec<Sample>,
    length: Duration,
    going_on: impl Fn() -> bool,
) -> Result<()> {
    let start = Instant::now();
    let interval = SAMPLING.max(length / SAMPLES);
    let bar = progress_bar(length);
    while going_on() && start.elapsed() < length {
        let now = start.elapsed();
        adder.add_until(now)?;
        if now >= interval * samples.len() as u32 {
            samples.push(Sample::of(adder.vm()));
            bar.set_position(now.as_millis() as u64);
            bar.set_message(format!("{} devices hot-added", adder.count()));
        }
        let next = adder.next_at().unwrap_or(length);
        thread::sleep(next.saturating_sub(start.elapsed()).min(TICK));
    }
    adder.add_until(start.elapsed().min(length))?;
    samples.push(Sample::of(adder.vm()));
    bar.finish_and_clear();
    Ok(())
}

/// A bar on the terminal; where there is none, nothing.
fn progress_bar(length: Duration) -> ProgressBar {
    let target = if stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length.as_millis() as u64), target);
    let style = ProgressStyle::with_template("{elapsed} [{bar:40}] {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
