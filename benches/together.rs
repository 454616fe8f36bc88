//! How many accesses of a distributor two vCPUs make in the time in which one makes one, where the
//! guard lets them in together and where they take turns. Fails where those that are let in together
//! reach less than 1.8; not in the short mode, whose times say little.

use std::{
    env,
    hint::{black_box, spin_loop},
    process::ExitCode,
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use axaddrspace::{
    GuestPhysAddr,
    device::AccessWidth::{self, Byte, Dword, Qword},
};
use axdevice::{SharedVmDevices, ThreadSafe};
use benches::guarded::{Embedded, at, distributor};

/// Accesses of a vCPU in a round: few enough that most rounds are not interrupted.
const ACCESSES: u32 = 20_000;

/// The accesses of two vCPUs that start together.
const ENOUGH: f64 = 1.8;

/// Where the vCPUs of a round wait until all are there.
struct Start(AtomicUsize);

impl Start {
    fn wait(&self, vcpus: usize) {
        self.0.fetch_add(1, SeqCst);
        while self.0.load(SeqCst) < vcpus {
            spin_loop();
        }
    }
}

/// How long it takes `vcpus` of them to make their accesses, from the first that starts to the last
/// that ends.
fn round(vcpus: usize, access: &(impl Fn() + Sync)) -> Duration {
    let start = Start(AtomicUsize::new(0));
    let vcpu = || {
        start.wait(vcpus);
        let started = Instant::now();
        (0..ACCESSES).for_each(|_| access());
        (started, Instant::now())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..vcpus).map(|_| scope.spawn(vcpu)).collect();
        let own = vcpu();
        let times = others
            .into_iter()
            .map(|other| other.join().expect("no panic"));
        let (first, last) = times.fold(own, |all, one| (all.0.min(one.0), all.1.max(one.1)));
        last - first
    })
}

/// The nanoseconds of an access of one vCPU, and how many times its rate two reach. One and two take
/// turns, and the best round of each counts: it is the one that nothing has disturbed.
fn measure(rounds: u32, access: impl Fn() + Sync) -> (f64, f64) {
    let best = |best: [Duration; 2], _| {
        [
            best[0].min(round(1, &access)),
            best[1].min(round(2, &access)),
        ]
    };
    let [one, two] = (0..rounds).fold([Duration::MAX; 2], best);
    let (one, two) = (one.as_secs_f64(), two.as_secs_f64());
    (one * 1e9 / f64::from(ACCESSES), 2.0 * one / two)
}

/// Prints a row of the table. Whether two vCPUs reach what is asked of them.
fn report(name: &str, how: &str, (nanoseconds, ratio): (f64, f64)) -> bool {
    println!("| {name} | {how} | {nanoseconds:.1} ns | {ratio:.2} × |");
    ratio >= ENOUGH
}

fn read(devices: &Embedded, addr: GuestPhysAddr, width: AccessWidth) {
    let read = devices.read(black_box(addr), width);
    black_box(read.expect("it answers"));
}

fn write(devices: &Embedded, addr: GuestPhysAddr, width: AccessWidth) {
    let written = devices.write(black_box(addr), width, 7);
    written.expect("it answers");
}

/// A register that many vCPUs trap on, and how they access it.
type Access = (&'static str, usize, AccessWidth, bool);

const ACCESSED: [Access; 4] = [
    ("GICD_ISENABLER1, write", 0x104, Dword, true),
    ("GICD_IPRIORITYR8, write", 0x420, Byte, true),
    ("GICD_IROUTER40, read", 0x6140, Qword, false),
    ("GICD_IGROUPR1, read", 0x84, Dword, false),
];

fn main() -> ExitCode {
    let once = env::args().any(|arg| arg == "--test");
    let rounds = if once { 1 } else { 500 };
    let (embedded, shared): (_, SharedVmDevices) = (Embedded::new(), distributor::<ThreadSafe>());
    println!("| access | in | one vCPU | two |");
    println!("|---|---|---|---|");
    let mut enough = true;
    for (name, offset, width, writes) in ACCESSED {
        let addr = at(offset);
        let together = match writes {
            true => measure(rounds, || write(&embedded, addr, width)),
            false => measure(rounds, || read(&embedded, addr, width)),
        };
        enough &= report(name, "`AxVmDevices`", together);
        let in_turn = match writes {
            true => measure(rounds, || {
                let written = shared.handle_mmio_write(black_box(addr), width, 7);
                written.expect("it answers");
            }),
            false => measure(rounds, || {
                let read = shared.handle_mmio_read(black_box(addr), width);
                black_box(read.expect("it answers"));
            }),
        };
        report(name, "`SharedVmDevices`, in turn", in_turn);
    }
    let alone = measure(rounds, || write(&embedded, at(0x84), Dword));
    report("GICD_IGROUPR1, write", "`AxVmDevices`, in turn", alone);
    if enough || once {
        ExitCode::SUCCESS
    } else {
        eprintln!(
            "two vCPUs that are in it together reach less than {ENOUGH} times the rate of one"
        );
        ExitCode::FAILURE
    }
}
