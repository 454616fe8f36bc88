//! The threads of the vCPUs: started one by one, and ended together within a bounded time.

use std::{
    error::Error,
    fmt,
    sync::{Arc, atomic::Ordering, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};

use crate::{
    progress::{Progress, Stretch},
    task::Task,
    vm::Vm,
};

/// The time limit for guests to obey the order to halt.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });
/// The time limit for a vCPU to leave a guest that does not halt.
const EVICTION: Duration = Duration::from_secs(2);
/// The time from one check of the threads to the next.
const TICK: Duration = Duration::from_millis(5);

/// The vCPUs of a VM, each a thread.
pub(crate) struct Vcpus {
    vm: Arc<Vm>,
    threads: Vec<JoinHandle<Result<()>>>,
    /// The scheduler's view of each thread, if the system provides it.
    tasks: Vec<Option<Task>>,
    kick: fn(&JoinHandle<Result<()>>),
}

impl Vcpus {
    /// No vCPUs yet. `kick` interrupts a vCPU, which then leaves its guest.
    pub(crate) fn new(vm: Arc<Vm>, kick: fn(&JoinHandle<Result<()>>)) -> Self {
        Self {
            vm,
            threads: Vec::new(),
            tasks: Vec::new(),
            kick,
        }
    }

    /// Starts a vCPU, and waits until its thread runs.
    pub(crate) fn push(
        &mut self,
        vcpu: u32,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let thread = thread::Builder::new().name(format!("vcpu{vcpu}"));
        let (sender, task) = mpsc::channel();
        let thread = thread
            .spawn(move || {
                // The receiver waits for it.
                let _ = sender.send(Task::current());
                run()
            })
            .with_context(|| format!("cannot start the thread of vCPU {vcpu}"))?;
        self.threads.push(thread);
        self.tasks
            .push(task.recv().context("the vCPU's thread ended at once")?);
        Ok(())
    }

    /// Whether a vCPU has ended. Before the order to halt, a vCPU ends only if it fails.
    pub(crate) fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// The progress of each vCPU.
    pub(crate) fn progress(&self) -> Vec<Progress> {
        let progress = |(vcpu, task): (usize, &Option<Task>)| Progress {
            at: Instant::now(),
            rounds: self.vm.mailbox.rounds(vcpu),
            times: task.as_ref().and_then(Task::times),
        };
        self.tasks.iter().enumerate().map(progress).collect()
    }

    /// Makes each vCPU leave its guest and drop older tables. One that is about to enter its guest
    /// may miss this.
    pub(crate) fn kick(&self) {
        self.threads.iter().for_each(self.kick);
    }

    /// Orders the guests to halt, waits until they have halted, and returns their results.
    pub(crate) fn stop(self) -> Ended {
        let ordered = self.progress();
        self.vm.mailbox.stop();
        let halted = self.ended_within(GRACE, |_| {});
        let unhalted = if halted {
            Vec::new()
        } else {
            self.unhalted(&ordered)
        };
        if !halted {
            self.vm.abandoned.store(true, Ordering::Relaxed);
            self.ended_within(EVICTION, self.kick);
        }
        self.join(unhalted)
    }

    /// The vCPUs that have not ended, and their progress since `ordered`.
    fn unhalted(&self, ordered: &[Progress]) -> Vec<(usize, Stretch)> {
        let now = self.progress();
        let stretches = ordered.iter().zip(&now).enumerate();
        stretches
            .filter(|(vcpu, _)| !self.threads[*vcpu].is_finished())
            .map(|(vcpu, (then, now))| (vcpu, Stretch::between(then, now)))
            .collect()
    }

    /// Waits until all threads have ended, and calls `nudge` with each thread that has not.
    fn ended_within(&self, limit: Duration, nudge: impl Fn(&JoinHandle<Result<()>>)) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let running = || self.threads.iter().filter(|thread| !thread.is_finished());
            if running().next().is_none() {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            running().for_each(&nudge);
            thread::sleep(TICK);
        }
    }

    /// Joins the threads that have ended, and leaves the others.
    fn join(self, unhalted: Vec<(usize, Stretch)>) -> Ended {
        let mut ended = Ended {
            unhalted,
            ..Ended::default()
        };
        for (vcpu, thread) in self.threads.into_iter().enumerate() {
            if !thread.is_finished() {
                ended.running += 1;
                continue;
            }
            let joined = thread.join();
            let joined = joined.unwrap_or_else(|_| Err(anyhow!("its thread panicked")));
            match joined.with_context(|| format!("vCPU {vcpu}")) {
                Err(error) if !error.is::<DoesNotHalt>() => ended.errors.push(error),
                _ => {}
            }
        }
        ended
    }
}

/// The results of the vCPUs.
#[derive(Debug, Default)]
pub(crate) struct Ended {
    /// The errors of the vCPUs that failed.
    pub(crate) errors: Vec<anyhow::Error>,
    /// The vCPUs that did not obey the order to halt, and their progress since.
    pub(crate) unhalted: Vec<(usize, Stretch)>,
    /// The number of vCPUs that still run.
    pub(crate) running: usize,
}

/// The error of a vCPU that was taken out of a guest that does not halt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DoesNotHalt;

impl fmt::Display for DoesNotHalt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the guest does not halt")
    }
}

impl Error for DoesNotHalt {}
