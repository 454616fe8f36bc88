//! The host's clock, which a test sets, and its timers.

use std::{
    mem,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use axvisor_api::time::{CancelToken, Nanos, Ticks, TimeIf, TimeValue};

/// The time. A tick is a nanosecond.
static NOW: AtomicU64 = AtomicU64::new(0);

static TIMERS: Mutex<Vec<Timer>> = Mutex::new(Vec::new());

struct Timer {
    token: CancelToken,
    deadline: TimeValue,
    callback: Box<dyn FnOnce(TimeValue) + Send>,
}

/// The time, in nanoseconds since the host started.
pub fn now() -> u64 {
    NOW.load(Ordering::Relaxed)
}

/// The times at which the set timers will expire, in ascending order.
pub fn deadlines() -> Vec<Duration> {
    let timers = TIMERS.lock().unwrap_or_else(PoisonError::into_inner);
    let mut deadlines: Vec<_> = timers.iter().map(|timer| timer.deadline).collect();
    deadlines.sort_unstable();
    deadlines
}

/// Lets time pass. Timers that expire are called at its end.
pub fn pass(time: Duration) {
    let nanos = u64::try_from(time.as_nanos()).expect("less than 584 years");
    let now = Duration::from_nanos(NOW.fetch_add(nanos, Ordering::Relaxed) + nanos);
    let mut timers = TIMERS.lock().unwrap_or_else(PoisonError::into_inner);
    let (due, left) = mem::take(&mut *timers)
        .into_iter()
        .partition(|timer| timer.deadline <= now);
    *timers = left;
    // A timer may set another.
    drop(timers);
    let due: Vec<_> = due;
    due.into_iter().for_each(|timer| (timer.callback)(now));
}

struct Time;

#[axvisor_api::api_impl]
impl TimeIf for Time {
    fn current_ticks() -> Ticks {
        now()
    }

    fn ticks_to_nanos(ticks: Ticks) -> Nanos {
        ticks
    }

    fn nanos_to_ticks(nanos: Nanos) -> Ticks {
        nanos
    }

    fn register_timer(
        deadline: TimeValue,
        callback: Box<dyn FnOnce(TimeValue) + Send + 'static>,
    ) -> CancelToken {
        static TOKENS: AtomicUsize = AtomicUsize::new(0);
        let token = TOKENS.fetch_add(1, Ordering::Relaxed);
        let mut timers = TIMERS.lock().unwrap_or_else(PoisonError::into_inner);
        timers.push(Timer {
            token,
            deadline,
            callback,
        });
        token
    }

    fn cancel_timer(token: CancelToken) {
        let mut timers = TIMERS.lock().unwrap_or_else(PoisonError::into_inner);
        timers.retain(|timer| timer.token != token);
    }
}
