//! The times of a thread from the scheduler of Linux: the time that it ran, and the time that it waited for a CPU.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// A thread of this process.
pub(crate) struct Task(PathBuf);

/// The times of a thread since it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Times {
    /// On a CPU.
    pub(crate) ran: Duration,
    /// Ready to run, but without a CPU. Without a wait that has not ended.
    pub(crate) waited: Duration,
    /// Whether the thread is on a CPU or waits for one.
    pub(crate) runnable: bool,
}

impl Task {
    /// The calling thread; `None` where the system has no such files.
    pub(crate) fn current() -> Option<Self> {
        let link = fs::read_link("/proc/thread-self").ok()?;
        Some(Self(Path::new("/proc").join(link)))
    }

    /// Its times; `None` if the thread has ended, or the system has no such files.
    pub(crate) fn times(&self) -> Option<Times> {
        let read = |file| fs::read_to_string(self.0.join(file)).ok();
        times(&read("schedstat")?, &read("stat")?)
    }
}

/// The times in these files of proc(5).
fn times(schedstat: &str, stat: &str) -> Option<Times> {
    let mut nanos = schedstat.split_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(nanos.next()?.ok()?));
    let (ran, waited) = (next()?, next()?);
    // The name of the thread, in parentheses, may contain any character.
    let state = stat.rsplit_once(')')?.1.split_whitespace().next()?;
    Some(Times {
        ran,
        waited,
        runnable: state == "R",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_for_a_name_with_parentheses() {
        let seen = times("1500 2500 3\n", "7 (a) S b) R 1 7 7").unwrap();
        let expected = Times {
            ran: Duration::from_nanos(1500),
            waited: Duration::from_nanos(2500),
            runnable: true,
        };
        assert_eq!(seen, expected);
        assert!(!times("0 0 0", "7 (a) S 1").unwrap().runnable);
    }

    #[test]
    fn a_file_of_another_form_gives_no_times() {
        assert_eq!(times("", "7 (a) R"), None);
        assert_eq!(times("1500", "7 (a) R"), None);
        assert_eq!(times("1500 2500 3", ""), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_thread_that_reads_its_own_times_runs() {
        let Some(times) = Task::current().and_then(|task| task.times()) else {
            eprintln!("skipped: no times of threads in /proc");
            return;
        };
        assert!(times.runnable);
    }
}
