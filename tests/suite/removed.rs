//! [`Removed`]: it reports when the last vCPU has left the device, and then returns the device.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Barrier, Mutex, OnceLock, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{Device, Dispatcher, Removed, SharedVmDevices, ThreadSafe};
use support::{
    Access, Bus, Recorder, answer, device, device_of, mortal, registry, shared_registry,
};

use crate::common::Graves;

const BYTE: AccessWidth = AccessWidth::Byte;
const QWORD: AccessWidth = AccessWidth::Qword;

fn a_handle_holds_a_removed_device_until_it_is_used_or_dropped<R: Bus>() {
    type LetsGo = (&'static str, fn(&mut Dispatcher<&SharedVmDevices>));
    let ways: [LetsGo; 5] = [
        ("refresh", |vcpu| vcpu.refresh()),
        ("park", |vcpu| vcpu.park()),
        ("hit", |vcpu| {
            assert!(R::vcpu_read(vcpu, 0x40, BYTE).is_ok())
        }),
        ("miss", |vcpu| {
            assert!(R::vcpu_write(vcpu, 0x10, BYTE, 0).is_err())
        }),
        ("drop", |vcpu| *vcpu = vcpu.registry().dispatcher()),
    ];
    for (name, release) in ways {
        let devices = shared_registry();
        let device = Recorder::<R>::silent(0, 0x10, 0x1f);
        R::add(&devices, Recorder::silent(1, 0x40, 0x40)).unwrap();
        let id = R::add(&devices, device.clone()).unwrap();
        let mut vcpu = devices.dispatcher();
        // One handle that holds tables from before the device, and one that holds none.
        let mut parked = devices.dispatcher();
        parked.refresh();
        parked.park();
        assert!(R::vcpu_read(&mut vcpu, 0x10, BYTE).is_ok());
        let removed = devices.remove(id).unwrap();
        assert_eq!((removed.holders(), removed.is_quiescent()), (1, false));
        // Neither changes nor dispatches without that handle end it.
        R::add(&devices, Recorder::silent(2, 0x80, 0x80)).unwrap();
        assert!(R::read(&devices, 0x80, BYTE).is_ok());
        let removed = removed.wait(3).expect_err("the handle holds it");
        release(&mut vcpu);
        assert!(removed.is_quiescent(), "{name}");
        assert_eq!(removed.holders(), 0, "{name}");
        let given = device_of::<R, _>(removed);
        assert!(Arc::ptr_eq(&given, &(device.clone() as _)));
        assert_eq!(
            Arc::strong_count(&device),
            2,
            "{name}: given, and the test's"
        );
    }
}

fn several_handles_of_one_table_count_once<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    let mut vcpus = [(); 3].map(|()| devices.dispatcher());
    vcpus[0].refresh();
    vcpus[1].refresh();
    R::add(&devices, Recorder::silent(1, 8, 8)).unwrap();
    vcpus[2].refresh();
    let removed = devices.remove(id).unwrap();
    let mut holders = vec![removed.holders()];
    for vcpu in &mut vcpus {
        vcpu.park();
        holders.push(removed.holders());
    }
    assert_eq!(holders, [2, 2, 1, 0]);
}

fn references_of_the_caller_do_not_delay_quiescence<R: Bus>() {
    let devices = registry();
    let id = R::add(&devices, Recorder::silent(0, 0, 7)).unwrap();
    let lent = R::all(&devices);
    let found = R::find(&devices, 0).unwrap();
    let snapshot = devices.snapshot();
    let removed = devices.remove(id).unwrap();
    assert!(removed.is_quiescent());
    let given = device_of::<R, _>(removed);
    assert!(Arc::ptr_eq(&given, &found) && Arc::ptr_eq(&given, lent[0]));
    assert!(Arc::ptr_eq(&given, &R::listed(&snapshot)[0].2));
    drop((lent, found, snapshot));
    // The registry keeps the lent device while it is borrowed, but no vCPU can reach it.
    assert_eq!(R::all(&devices).len(), 0);
}

fn waiting_gives_the_device_alone<R: Bus>() {
    let devices = registry();
    for n in 0..20 {
        let id = R::add(&devices, Recorder::silent(n, 0x10, 0x1f)).unwrap();
        R::add(&devices, Recorder::silent(n, 0x100 + n, 0x100 + n)).unwrap();
        assert!(R::read(&devices, 0x10, BYTE).is_ok());
        let given = device_of::<R, _>(devices.remove(id).unwrap());
        assert_eq!(Arc::strong_count(&given), 1);
        assert_eq!(Arc::weak_count(&given), 0);
        let read = given.handle_read(R::at(0x10), QWORD);
        assert_eq!(read, Ok(answer(n, 0x10)));
    }
    assert_eq!(R::all(&devices).len(), 20);
}

fn from_its_own_handler_waiting_ends_and_gives_the_removal_back<R: Bus>() {
    for by_handle in [false, true] {
        let devices = Arc::new(shared_registry());
        let own = Arc::new(OnceLock::new());
        let leaves = Arc::new(Mutex::new(None));
        let (weak, id, left) = (Arc::downgrade(&devices), own.clone(), leaves.clone());
        let device = device::<R>(0, 7, move |Access { at, .. }| {
            let devices = weak.upgrade().unwrap();
            let removed = devices.remove(*id.get().unwrap()).unwrap();
            assert!(R::find(&*devices, at).is_none(), "unlinked at once");
            assert!(!removed.is_quiescent() && removed.holders() > 0);
            let removed = removed.wait(0).unwrap_err().wait(50).unwrap_err();
            // Other devices may take its range while its handler runs.
            R::add(&*devices, Recorder::silent(1, 0, 7)).unwrap();
            *left.lock().unwrap() = Some(removed);
            Ok(5)
        });
        own.set(R::add(&*devices, device).unwrap()).unwrap();
        let mut vcpu = devices.dispatcher();
        let read = match by_handle {
            true => R::vcpu_read(&mut vcpu, 0, BYTE),
            false => R::read(&*devices, 0, BYTE),
        };
        assert_eq!(read, Ok(5));
        let removed = leaves.lock().unwrap().take().unwrap();
        assert_eq!(removed.is_quiescent(), !by_handle);
        assert_eq!(R::vcpu_read(&mut vcpu, 0, QWORD), Ok(answer(1, 0)));
        assert_eq!(Arc::strong_count(&device_of::<R, _>(removed)), 1);
    }
}

fn waiting_for_a_time_gives_up_and_says_why<R: Bus>() {
    const TIME: Duration = Duration::from_millis(20);
    let devices = shared_registry();
    let id = R::add(&devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let mut vcpus = [devices.dispatcher(), devices.dispatcher()];
    assert!(R::vcpu_read(&mut vcpus[0], 0x10, BYTE).is_ok());
    // Another device: the other handle's tables then list the device a second time.
    R::add(&devices, Recorder::silent(1, 0x20, 0x2f)).unwrap();
    assert!(R::vcpu_read(&mut vcpus[1], 0x10, BYTE).is_ok());
    let mut removed = devices.remove(id).unwrap();
    let in_use = format!("device {id} was removed and is still in use: ");
    for (holders, holds) in [(2, "2 older tables list it"), (1, "1 older table lists it")] {
        let start = Instant::now();
        removed = removed.wait_timeout(TIME).expect_err("a handle holds it");
        assert!(start.elapsed() >= TIME);
        assert_eq!((removed.id(), removed.holders()), (id, holders));
        // The error has the same text.
        let error: &dyn Error = &removed;
        assert_eq!(error.to_string(), format!("{in_use}{holds}"));
        assert!(error.source().is_none());
        vcpus[holders - 1].park();
    }
    // With no time there is one check.
    let device = removed
        .wait_timeout(Duration::ZERO)
        .expect("no handle holds it");
    let device = R::unwrapped(device).expect("it is on its own bus");
    assert_eq!(Arc::strong_count(&device), 1);
}

fn waiting_for_a_time_ends_when_another_thread_parks<R: Bus>() {
    const LONG: Duration = Duration::from_secs(600);
    let devices = &shared_registry();
    let id = R::add(devices, Recorder::silent(0, 0x10, 0x1f)).unwrap();
    let (holds, held) = mpsc::channel();
    let (waits, waited) = mpsc::channel::<()>();
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut vcpu = devices.dispatcher();
            assert!(R::vcpu_read(&mut vcpu, 0x10, BYTE).is_ok());
            holds.send(()).unwrap();
            waited.recv().unwrap();
            // By then the other thread most likely sleeps.
            thread::sleep(Duration::from_millis(10));
            vcpu.park();
            // The handle is parked, not dropped.
            waited.recv().unwrap_err();
        });
        held.recv().unwrap();
        let removed = devices.remove(id).unwrap();
        let removed = removed.wait_timeout(Duration::ZERO).unwrap_err();
        waits.send(()).unwrap();
        let start = Instant::now();
        assert!(removed.wait_timeout(LONG).is_ok());
        assert!(start.elapsed() < LONG);
        drop(waits);
    });
}

on_every_bus!(
    waiting_for_a_time_gives_up_and_says_why,
    waiting_for_a_time_ends_when_another_thread_parks,
    a_handle_holds_a_removed_device_until_it_is_used_or_dropped,
    several_handles_of_one_table_count_once,
    references_of_the_caller_do_not_delay_quiescence,
    waiting_gives_the_device_alone,
    from_its_own_handler_waiting_ends_and_gives_the_removal_back,
);

#[test]
fn a_device_is_not_quiescent_while_a_vcpu_is_inside() {
    let devices = shared_registry();
    let barriers = Arc::new((Barrier::new(2), Barrier::new(2)));
    let inside = barriers.clone();
    let device = device::<PortRange>(0, 7, move |_| {
        inside.0.wait();
        inside.1.wait();
        Ok(6)
    });
    let id = devices.add_port_dev(device).unwrap();
    thread::scope(|scope| {
        let vcpu = scope.spawn(|| devices.handle_port_read(Port(0), BYTE));
        barriers.0.wait();
        let removed = devices.remove(id).unwrap();
        assert_eq!(removed.holders(), 1);
        let removed = removed.wait(20).unwrap_err();
        barriers.1.wait();
        // The vCPU is leaving, which may take any time.
        let device = removed.wait(usize::MAX).unwrap();
        assert_eq!(vcpu.join().unwrap(), Ok(6));
        assert_eq!(Arc::strong_count(&PortRange::unwrapped(device).unwrap()), 1);
    });
}

/// Each vCPU drops its tables when it is kicked out of its guest, and not before.
#[test]
fn waiting_ends_when_every_vcpu_was_kicked() {
    const VCPUS: usize = 3;
    let devices = shared_registry();
    let id = devices.add_port_dev(Recorder::silent(0, 0, 7)).unwrap();
    thread::scope(|scope| {
        let (says, ready) = mpsc::channel();
        let vcpu = |nth: usize| {
            let (kick, kicked) = mpsc::channel();
            let (devices, says) = (&devices, says.clone());
            scope.spawn(move || {
                let mut vcpu = devices.dispatcher();
                assert!(vcpu.handle_port_read(Port(0), BYTE).is_ok());
                says.send(()).unwrap();
                let () = kicked.recv().unwrap();
                match nth % 2 {
                    0 => vcpu.refresh(),
                    _ => vcpu.park(),
                }
                says.send(()).unwrap();
                // The vCPU is in its guest again.
                kicked.recv().unwrap_err();
            });
            kick
        };
        let kicks: Vec<mpsc::Sender<()>> = (0..VCPUS).map(vcpu).collect();
        (0..VCPUS).for_each(|_| ready.recv().unwrap());
        let mut removed = devices.remove(id).unwrap();
        for kick in &kicks {
            removed = removed.wait(2).unwrap_err();
            assert_eq!(removed.holders(), 1);
            kick.send(()).unwrap();
            ready.recv().unwrap();
        }
        assert!(removed.wait(0).is_ok());
    });
}

#[test]
fn a_removal_may_be_dropped_before_it_is_quiescent() {
    let graves = Graves::default();
    let devices = shared_registry();
    let id = devices.add_port_dev(graves.mortal(0)).unwrap();
    let mut vcpu = devices.dispatcher();
    vcpu.refresh();
    drop(devices.remove(id).unwrap());
    devices.reclaim();
    assert!(graves.lock().is_empty(), "the handle holds the tables");
    vcpu.park();
    assert!(graves.lock().is_empty(), "`park` drops no device");
    let sweeper = thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            devices.reclaim();
            thread::current().id()
        });
        sweeper.join().unwrap()
    });
    assert_eq!(*graves.lock(), [sweeper]);
}

#[test]
fn a_removal_outlives_its_registry() {
    let graves = Graves::default();
    let devices = Arc::new(shared_registry());
    let id = devices.add_port_dev(graves.mortal(0)).unwrap();
    let mut vcpu = Dispatcher::new(devices.clone());
    vcpu.refresh();
    let removed = devices.remove(id).unwrap();
    drop(devices);
    // The handle keeps the registry.
    let removed = removed.wait(3).unwrap_err();
    drop(vcpu);
    assert!(removed.is_quiescent());
    assert_eq!(removed.id(), id);
    let given = device_of::<PortRange, ThreadSafe>(removed);
    assert_eq!(Arc::strong_count(&given), 1);
    assert!(graves.lock().is_empty());
    drop(given);
    assert_eq!(graves.lock().len(), 1);
}

#[test]
fn a_removal_waits_on_another_thread() {
    let graves = Graves::default();
    let devices = shared_registry();
    let id = devices.add_port_dev(graves.mortal(0)).unwrap();
    let mut vcpu = devices.dispatcher();
    vcpu.refresh();
    let removed = devices.remove(id).unwrap();
    let waiter = thread::spawn(move || {
        drop(removed.wait(usize::MAX).unwrap());
        thread::current().id()
    });
    thread::yield_now();
    assert!(graves.lock().is_empty());
    vcpu.park();
    let waiter = waiter.join().unwrap();
    assert_eq!(*graves.lock(), [waiter]);
}

#[test]
fn a_handler_that_removes_itself_and_unwinds_is_quiescent_afterwards() {
    let devices = Arc::new(shared_registry());
    let own = Arc::new(OnceLock::new());
    let leaves: Arc<Mutex<Option<Removed<_>>>> = Arc::default();
    let (weak, id, left): (Weak<SharedVmDevices>, _, _) =
        (Arc::downgrade(&devices), own.clone(), leaves.clone());
    let device = device::<PortRange>(0, 7, move |_| -> AxResult<usize> {
        let removed = weak.upgrade().unwrap().remove(*id.get().unwrap());
        *left.lock().unwrap() = Some(removed.unwrap());
        panic!("a handler that unwinds");
    });
    own.set(devices.add_port_dev(device).unwrap()).unwrap();
    let read = || devices.handle_port_read(Port(0), BYTE);
    assert!(catch_unwind(AssertUnwindSafe(read)).is_err());
    assert_eq!(read(), Err(AxError::NotFound));
    let removed = leaves.lock().unwrap().take().unwrap();
    assert!(removed.wait(0).is_ok());
}

/// Adds, moves and removes a device in the destructor of another; counts the destructors in which that device was
/// immediately quiescent.
fn avenge(devices: &SharedVmDevices, quiescent: &AtomicUsize) {
    let heir = devices
        .add_port_dev(Recorder::silent(1, 0x10, 0x17))
        .unwrap();
    devices
        .move_to(heir, PortRange::covering(0x20, 0x27))
        .unwrap();
    let removed = devices.remove(heir).unwrap();
    devices.reclaim();
    quiescent.fetch_add(usize::from(removed.is_quiescent()), Relaxed);
}

#[test]
fn the_destructor_of_a_removed_device_may_use_the_registry() {
    let devices = Arc::new(shared_registry());
    let died = Arc::new(AtomicUsize::new(0));
    let add = || {
        let (weak, died) = (Arc::downgrade(&devices), died.clone());
        let device = mortal::<PortRange>(0, 7, move || {
            if let Some(devices) = weak.upgrade() {
                avenge(&devices, &died);
            }
        });
        devices.add_port_dev(device).unwrap()
    };
    // Dropped by its last owner, and by a sweep.
    let Ok(Device::Port(device)) = devices.remove(add()).unwrap().wait(0) else {
        panic!("a port device that no vCPU is in");
    };
    drop(device);
    assert_eq!(died.load(Relaxed), 1);
    let mut vcpu = devices.dispatcher();
    let id = add();
    vcpu.refresh();
    drop(devices.remove(id).unwrap());
    assert_eq!(died.load(Relaxed), 1);
    vcpu.park();
    devices.reclaim();
    assert_eq!(died.load(Relaxed), 2);
    assert_eq!(devices.iter_port_dev().count(), 0);
}
