//! The allocator of IVC channels: no two callers get the same pages, and none are lost.

use std::sync::Arc;

use ax_errno::AxError;

use super::{Bound::Unbounded, check, thread};
use crate::ivc::IvcChannels;

const PAGE: usize = 4096;

fn channels(pages: usize) -> Arc<IvcChannels> {
    Arc::new(IvcChannels::new(0, pages * PAGE).expect("memory for a small bitmap"))
}

#[test]
fn two_allocations_do_not_overlap() {
    check("alloc, alloc", 2, Unbounded, || {
        let ivc = channels(3);
        let other = ivc.clone();
        let other = thread::spawn(move || other.alloc(2 * PAGE));
        let ours = ivc.alloc(PAGE);
        let theirs = other.join().expect("the other panicked");
        let (ours, theirs) = (ours.unwrap().as_usize(), theirs.unwrap().as_usize());
        assert!(ours + PAGE <= theirs || theirs + 2 * PAGE <= ours);
        assert_eq!(ivc.alloc(PAGE), Err(AxError::NoMemory));
    });
}

#[test]
fn of_two_releases_of_one_channel_one_is_refused() {
    check("release, release", 2, Unbounded, || {
        let ivc = channels(1);
        let channel = ivc.alloc(PAGE).unwrap();
        let other = ivc.clone();
        let other = thread::spawn(move || other.release(channel, PAGE));
        let ours = ivc.release(channel, PAGE);
        let theirs = other.join().expect("the other panicked");
        assert_ne!(ours.is_ok(), theirs.is_ok());
        assert_eq!(ivc.alloc(PAGE), Ok(channel));
    });
}

#[test]
fn released_memory_can_be_allocated_again() {
    check("alloc and release, twice", 2, Unbounded, || {
        let ivc = channels(2);
        let use_one = |ivc: &IvcChannels| {
            let channel = ivc.alloc(PAGE).unwrap();
            assert_eq!(ivc.release(channel, PAGE), Ok(()));
        };
        let other = ivc.clone();
        let other = thread::spawn(move || use_one(&other));
        use_one(&ivc);
        other.join().expect("the other panicked");
        assert_eq!(
            ivc.alloc(2 * PAGE).map(usize::from),
            Ok(0),
            "pages were lost"
        );
    });
}
