//! Registers of the host at which vCPUs meet, which shows that they are in a device together.

use std::{
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

/// The register at which vCPUs meet now, or zero. With it, other accesses need no lock.
static PLACE: AtomicUsize = AtomicUsize::new(0);

/// The state of the meeting.
static MEETING: Mutex<Option<Arc<Gathering>>> = Mutex::new(None);

struct Gathering {
    patience: Duration,
    stage: Mutex<Stage>,
    changed: Condvar,
}

#[derive(Clone, Copy, PartialEq)]
enum Stage {
    /// No vCPU is there.
    Empty,
    /// The first vCPU waits.
    Waiting,
    /// There were two vCPUs at once.
    Met,
    /// The first vCPU has left without the second.
    Missed,
}

impl Gathering {
    fn attend(&self) {
        let mut stage = self.stage.lock().unwrap_or_else(PoisonError::into_inner);
        match *stage {
            Stage::Empty => *stage = Stage::Waiting,
            Stage::Waiting => {
                *stage = Stage::Met;
                self.changed.notify_all();
                return;
            }
            Stage::Met | Stage::Missed => return,
        }
        let waits = |stage: &mut Stage| *stage == Stage::Waiting;
        let waited = self.changed.wait_timeout_while(stage, self.patience, waits);
        let (mut stage, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            *stage = Stage::Missed;
        }
    }
}

/// A meeting that was called, until it is dropped.
#[derive(Debug)]
pub struct Meeting(());

/// Lets a device's next access to the host's register at `addr` wait, inside the device, until
/// another access to that register is made, or for `patience`.
///
/// The caller has exclusive use of the machine ([`exclusive`](super::machine::exclusive)).
pub fn meet_at(addr: usize, patience: Duration) -> Meeting {
    let mut meeting = MEETING.lock().unwrap_or_else(PoisonError::into_inner);
    *meeting = Some(Arc::new(Gathering {
        patience,
        stage: Mutex::new(Stage::Empty),
        changed: Condvar::new(),
    }));
    PLACE.store(addr, Ordering::Relaxed);
    Meeting(())
}

impl Meeting {
    /// Whether two accesses were being made at the same time.
    pub fn took_place(&self) -> bool {
        let meeting = gathering().expect("it was called");
        let stage = meeting.stage.lock().unwrap_or_else(PoisonError::into_inner);
        *stage == Stage::Met
    }
}

impl Drop for Meeting {
    fn drop(&mut self) {
        PLACE.store(0, Ordering::Relaxed);
        *MEETING.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

fn gathering() -> Option<Arc<Gathering>> {
    MEETING
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone()
}

/// A device is about to access the physical address `addr`.
pub(crate) fn attend(addr: usize) {
    if PLACE.load(Ordering::Relaxed) == addr
        && let Some(meeting) = gathering()
    {
        meeting.attend();
    }
}
