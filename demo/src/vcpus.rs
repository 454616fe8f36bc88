//! The threads of the vCPUs: started one by one, ended together, and within a bounded time.

use std::{
    sync::{Arc, atomic::Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};

use crate::vm::Vm;

/// How long guests that were told to halt may take.
const GRACE: Duration = Duration::from_millis(if cfg!(test) { 200 } else { 5000 });
/// How long a vCPU may take to leave a guest that does not halt.
const EVICTION: Duration = Duration::from_secs(2);
/// From one look at the threads to the next.
const TICK: Duration = Duration::from_millis(5);

/// The vCPUs of a VM, each a thread.
pub(crate) struct Vcpus {
    vm: Arc<Vm>,
    threads: Vec<JoinHandle<Result<()>>>,
    kick: fn(&JoinHandle<Result<()>>),
}

impl Vcpus {
    /// No vCPUs yet. `kick` interrupts one, so that it leaves its guest.
    pub(crate) fn new(vm: Arc<Vm>, kick: fn(&JoinHandle<Result<()>>)) -> Self {
        Self {
            vm,
            threads: Vec::new(),
            kick,
        }
    }

    /// Starts a vCPU.
    pub(crate) fn push(
        &mut self,
        vcpu: u32,
        run: impl FnOnce() -> Result<()> + Send + 'static,
    ) -> Result<()> {
        let thread = thread::Builder::new().name(format!("vcpu{vcpu}"));
        let thread = thread
            .spawn(run)
            .with_context(|| format!("no thread for vCPU {vcpu}"))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Whether a vCPU has ended. None does before it is told to, unless it failed.
    pub(crate) fn any_ended(&self) -> bool {
        self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Has each vCPU leave its guest and let go of older tables. One that is about to enter its guest
    /// may miss this.
    pub(crate) fn kick(&self) {
        self.threads.iter().for_each(self.kick);
    }

    /// Tells the guests to halt, waits until they have, and returns what went wrong, if anything.
    pub(crate) fn stop(self) -> Result<()> {
        self.vm.mailbox.stop();
        if self.ended_within(GRACE, |_| {}) {
            return self.join();
        }
        self.vm.abandoned.store(true, Ordering::Relaxed);
        if self.ended_within(EVICTION, self.kick) {
            return self.join();
        }
        bail!("a vCPU does not leave its guest, not even for a signal");
    }

    /// Waits until all threads have ended, and does something with each that has not meanwhile.
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

    fn join(self) -> Result<()> {
        for (vcpu, thread) in self.threads.into_iter().enumerate() {
            match thread.join() {
                Ok(ended) => ended.with_context(|| format!("vCPU {vcpu}"))?,
                Err(_) => bail!("vCPU {vcpu}: its thread panicked"),
            }
        }
        Ok(())
    }
}
