//! The main thread's part of a run: it hot-adds devices, samples the counters and shows progress, while another
//! thread changes devices, until the time has passed, the user ends the run, or a vCPU ends.

use std::{
    io::{IsTerminal as _, stderr},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Error, Result, anyhow};
use board::{Added, Adder};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{
    changer::{Changer, Changes},
    counts::overlooked,
    options::Options,
    progress::Stretch,
    stop::{Reason, Stop},
    top,
    units::counted,
    vcpus::Vcpus,
    vm::Vm,
};

/// The shortest time from one sample of the counters to the next.
const SAMPLING: Duration = Duration::from_millis(100);
/// The approximate maximum number of samples.
const SAMPLES: u32 = 200;
/// The longest time between two checks whether the run is over.
const TICK: Duration = Duration::from_millis(10);
/// The time after the end of the run in which a due device is still hot-added.
const CATCHING_UP: Duration = Duration::from_secs(1);
/// The time limit, at the end, for the vCPUs to see the last devices.
const SETTLING: Duration = Duration::from_secs(5);

/// The record of a run.
pub(crate) struct Record {
    /// The time for which the vCPUs ran.
    pub(crate) ran: Duration,
    pub(crate) added: Vec<Added>,
    /// The number of devices that were due but not hot-added, because the time had passed.
    pub(crate) left_out: u32,
    pub(crate) changes: Changes,
    pub(crate) samples: Vec<Sample>,
    /// The reason why it ended early, if it did.
    pub(crate) cut: Option<Reason>,
    /// The progress of each vCPU in its time to see the last devices; empty if the run was cut short.
    pub(crate) settling: Vec<Settling>,
    /// The vCPUs that did not halt, and their progress in their time to halt.
    pub(crate) unhalted: Vec<(usize, Stretch)>,
    /// The number of removed devices that are still in use after all vCPUs have ended.
    pub(crate) held: usize,
    /// The errors that ended the run or a vCPU.
    pub(crate) errors: Vec<Error>,
}

/// The progress of a vCPU in its time to see the last devices.
pub(crate) struct Settling {
    pub(crate) stretch: Stretch,
    /// The number of devices that it saw in that time.
    seen: usize,
}

impl Settling {
    /// Whether it saw a device in each of its rounds, and so looked for the next one.
    pub(crate) fn looked(&self) -> bool {
        // The first round that ended had begun before.
        self.seen as u64 + 1 >= self.stretch.rounds
    }
}

/// The exits of each vCPU up to one time.
pub(crate) struct Sample {
    /// By the clock of the board.
    pub(crate) at: Duration,
    pub(crate) exits: Vec<u64>,
}

impl Sample {
    fn of(vm: &Vm) -> Self {
        let exits = vm.exits.iter().map(|exits| exits.total());
        Self {
            at: Duration::from_nanos(vm.nanos()),
            exits: exits.collect(),
        }
    }
}

/// Hot-adds to `vm`, and runs `changer`, while `vcpus` run; then ends them.
pub(crate) fn conduct(
    options: &Options,
    changer: Changer<'_>,
    vm: &Vm,
    vcpus: Vcpus,
    stop: &Stop,
    title: &str,
) -> Result<Record> {
    let length = Duration::from_secs(options.seconds.into());
    let mut adder = Adder::new(vm, options.adds()?);
    let mut samples = vec![Sample::of(vm)];
    let over = AtomicBool::new(false);
    let bar = progress_bar(length, options.top);

    let start = Instant::now();
    let (added, changed, settling, shown) = thread::scope(|scope| {
        let show = || top::show(vm, &vcpus, title, stop, &over);
        let showing = options.top.then(|| scope.spawn(show));
        let changing = scope.spawn(|| changer.run(&over, || vcpus.kick(), || vcpus.progress()));
        let showing_ended = || showing.as_ref().is_some_and(ScopedJoinHandle::is_finished);
        let going_on = || {
            let ended = vcpus.any_ended() || changing.is_finished() || showing_ended();
            stop.reason().is_none() && !ended
        };
        let rate = options.adds_per_second;
        let added = hot_add(vm, &mut adder, rate, &mut samples, length, going_on, &bar);
        let settling = settle(vm, &adder, &vcpus, going_on);
        over.store(true, Ordering::Relaxed);
        let shown = showing.map_or(Ok(()), joined);
        (added, joined(changing), settling, shown)
    });
    let ran = start.elapsed();
    let cut = stop.reason();
    let ended = vcpus.stop();
    let mut errors = ended.errors;
    errors.extend(added.err().into_iter().chain(shown.err()));
    let changes = changed.unwrap_or_else(|error| {
        errors.push(error);
        Changes::default()
    });
    let held = match ended.running {
        0 => still_in_use(&changes),
        _ => 0,
    };
    Ok(Record {
        ran,
        left_out: adder.left(),
        added: adder.into_added(),
        changes,
        samples,
        cut,
        settling: if cut.is_some() { Vec::new() } else { settling },
        unhalted: ended.unhalted,
        held,
        errors,
    })
}

fn still_in_use(changes: &Changes) -> usize {
    let pending = changes.pending.iter();
    pending.filter(|gone| !gone.removed.is_quiescent()).count()
}

/// Waits until all vCPUs have seen all devices, for a limited time. Returns the progress of each.
fn settle(vm: &Vm, adder: &Adder<'_>, vcpus: &Vcpus, going_on: impl Fn() -> bool) -> Vec<Settling> {
    let sights = || -> Vec<usize> { (0..vm.vcpus).map(|vcpu| adder.seen(vcpu)).collect() };
    // Devices are counted from before the first round to after the last, so none is left out.
    let seen = sights();
    let from = vcpus.progress().into_iter().zip(seen);
    let settled = Instant::now() + SETTLING;
    while !adder.all_seen() && overlooked(vm) == 0 && going_on() && Instant::now() < settled {
        thread::sleep(TICK);
    }
    let to = vcpus.progress();
    let to = to.into_iter().zip(sights());
    from.zip(to)
        .map(|((from, seen), (to, seen_now))| Settling {
            stretch: Stretch::between(&from, &to),
            seen: seen_now - seen,
        })
        .collect()
}

fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    let panicked = |_| anyhow!("a thread of the demo panicked");
    thread.join().map_err(panicked)?
}

/// Hot-adds `rate` devices in a second for `length`, with samples of the counters.
fn hot_add(
    vm: &Vm,
    adder: &mut Adder<'_>,
    rate: u32,
    samples: &mut Vec<Sample>,
    length: Duration,
    going_on: impl Fn() -> bool,
    bar: &ProgressBar,
) -> Result<()> {
    let start = Instant::now();
    let interval = SAMPLING.max(length / SAMPLES);
    while going_on() && start.elapsed() < length {
        let now = start.elapsed();
        add_until(now, adder, rate, || going_on() && start.elapsed() < length)?;
        if now >= interval * samples.len() as u32 {
            samples.push(Sample::of(vm));
            bar.set_position(now.as_millis() as u64);
            let added = counted(adder.count().into(), "device");
            bar.set_message(format!("{added} hot-added"));
        }
        let next = next_at(adder, rate).unwrap_or(length);
        thread::sleep(next.saturating_sub(start.elapsed()).min(TICK));
    }
    let latest = length + CATCHING_UP;
    add_until(length, adder, rate, || {
        going_on() && start.elapsed() < latest
    })?;
    samples.push(Sample::of(vm));
    bar.finish_and_clear();
    Ok(())
}

/// Adds all devices that are due at `now`, while `going_on`.
fn add_until(
    now: Duration,
    adder: &mut Adder<'_>,
    rate: u32,
    going_on: impl Fn() -> bool,
) -> Result<()> {
    while next_at(adder, rate).is_some_and(|at| at <= now) && going_on() {
        let slot = adder.count();
        adder.add().with_context(|| format!("slot {slot}"))?;
    }
    Ok(())
}

/// The time at which the next device is due; `None`: all are added.
fn next_at(adder: &Adder<'_>, rate: u32) -> Option<Duration> {
    // In the middle of its share of the second, so that the last one is not at the very end.
    let at = || (f64::from(adder.count()) + 0.5) / f64::from(rate);
    (adder.left() > 0).then(|| Duration::from_secs_f64(at()))
}

/// A progress bar on the terminal; hidden without a terminal, and under the live view.
fn progress_bar(length: Duration, top: bool) -> ProgressBar {
    let target = if stderr().is_terminal() && !top {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(length.as_millis() as u64), target);
    let style = ProgressStyle::with_template("{elapsed} [{bar:40}] {msg}");
    bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
