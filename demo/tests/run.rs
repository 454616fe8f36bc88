//! Runs the demo as a user would, with KVM where there is one and without, and reads its output.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{LazyLock, PoisonError, RwLock},
    thread,
    time::{Duration, Instant},
};

/// The plot file of a test.
fn plot(test: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.svg"))
}

/// The demo with these options, the test's own plot file, and output that is not a terminal.
fn demo(test: &str, options: &[&str]) -> Command {
    let plot = plot(test);
    // From an earlier run; usually there is none.
    let _ = fs::remove_file(&plot);
    let mut command = Command::new(env!("CARGO_BIN_EXE_demo"));
    command.args(options).arg("--plot").arg(plot);
    command
}

/// A run that needs its share of the CPUs locks it for reading; a run that uses all CPUs locks it for writing.
static CPUS: RwLock<()> = RwLock::new(());

fn output(command: &mut Command) -> (Output, String) {
    let _share = CPUS.read().unwrap_or_else(PoisonError::into_inner);
    output_of(command)
}

fn output_of(command: &mut Command) -> (Output, String) {
    let output = command.output().expect("the demo runs");
    let text = String::from_utf8(output.stdout.clone()).expect("it prints UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    println!("{text}{errors}");
    assert!(
        !(text.clone() + &errors).contains('\x1b'),
        "control characters"
    );
    (output, text)
}

/// The ways to run the demo on this machine.
static WAYS: LazyLock<Vec<&[&str]>> = LazyLock::new(|| {
    let (_, text) = output(&mut demo("probe", &["--seconds", "1", "--vcpus", "1"]));
    let mode = value(&text, "mode");
    if mode == "1 vCPU as a KVM guest" {
        return vec![&[], &["--threads"]];
    }
    eprintln!("skipped: runs in KVM, for want of it here ({mode})");
    vec![&["--threads"]]
});

/// Runs of one length.
const EQUAL: [&str; 5] = ["2"; 5];
/// Runs of which each is longer than those before.
const LONGER: [&str; 5] = ["1", "2", "4", "8", "16"];

/// Runs the demo for each of these numbers of seconds in turn, until a run is as wanted. Other programs may have the
/// CPUs for a while, so that vCPUs starve, and some events occur only by chance.
///
/// # Panics
///
/// If no run is as wanted.
fn run_until(
    test: &str,
    seconds: [&str; 5],
    options: &[&str],
    wanted: impl Fn(&Output, &str) -> bool,
) -> (Output, String) {
    let runs = seconds.map(|seconds| [options, &["--seconds", seconds]].concat());
    let mut runs = runs.iter().map(|options| output(&mut demo(test, options)));
    let found = runs.find(|(output, text)| wanted(output, text));
    found.expect("one of the runs is as wanted")
}

/// Runs the demo until a run passes. One in which it had too little CPU time is repeated.
///
/// # Panics
///
/// If a run fails, or all had too little CPU time.
fn passed(test: &str, options: &[&str]) -> (Output, String) {
    run_until(test, EQUAL, options, passes)
}

/// Whether the run passes. If not, the demo had too little CPU time: vCPUs starved, or hot-adds were skipped.
///
/// # Panics
///
/// If it fails.
fn passes(output: &Output, text: &str) -> bool {
    let status = output.status.code();
    assert!(matches!(status, Some(0 | 3)), "{status:?}");
    status == Some(0) && !text.contains("hot-adds skipped")
}

/// The lines that count changes by kind.
const CHANGES: [&str; 4] = [
    "shifts, of 8 devices each",
    "single moves",
    "single removals",
    "single additions",
];

/// The text after `name: `.
fn value<'t>(text: &'t str, name: &str) -> &'t str {
    let prefix = format!("{name}: ");
    let found = text.lines().find_map(|line| line.strip_prefix(&prefix));
    found.unwrap_or_else(|| panic!("no line `{prefix}`"))
}

/// The number after `name: `.
fn number(text: &str, name: &str) -> u64 {
    value(text, name).parse().expect("a number")
}

/// The table's rows, one for each vCPU.
fn rows(text: &str) -> Vec<[u64; 8]> {
    let rows = text.lines().filter(|line| line.starts_with('|')).skip(2);
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        let cells: Vec<u64> = cells
            .map(|cell| cell.trim().parse().expect("a number"))
            .collect();
        cells.try_into().expect("8 columns")
    })
    .collect()
}

/// The verdict, which is the first line.
fn verdict(text: &str) -> &str {
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("verdict: ").expect("a verdict")
}

/// The lines with a count that should be zero.
const NEVER: [&str; 9] = [
    "wrong values",
    "late accesses",
    "accesses astray",
    "accesses that failed",
    "reads that missed a hot-added device",
    "removed devices still in use",
    "doorbell writes that exited",
    "late doorbell rings",
    "lost doorbell rings",
];

fn assert_nothing_wrong(text: &str) {
    for never in NEVER {
        assert_eq!(number(text, never), 0, "{never}");
    }
}

fn assert_is_svg(plot: &Path) {
    let svg = fs::read_to_string(plot).expect("a plot");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("vCPU 0") && svg.contains("hot-add"));
    assert!(svg.contains("<polyline"));
}

#[test]
fn every_vcpu_sees_every_device_and_nothing_wrong() {
    for way in WAYS.iter() {
        let (_, text) = passed("right", &[&["--vcpus", "3"], *way].concat());
        assert!(verdict(&text).starts_with("passed: 3 vCPUs checked "));
        assert!(verdict(&text).contains(" values, beside 100 hot-added devices and "));
        assert_nothing_wrong(&text);
        assert_eq!(number(&text, "hot-adds"), 100);
        assert!(value(&text, "accessed most").contains(" reads, "));
        assert!(value(&text, "missed most").ends_with(" times"));
        let rows = rows(&text);
        assert_eq!(rows.len(), 3);
        let exits: u64 = rows.iter().map(|row| row[1] + row[2]).sum();
        assert_eq!(exits, number(&text, "exits"));
        for (n, row) in rows.iter().enumerate() {
            let [vcpu, mmio, port, per_second, misses, checks, wrong, seen] = *row;
            assert_eq!(vcpu, n as u64);
            assert!(mmio > 0 && port > 0 && per_second > 0 && misses > 0);
            assert!(checks > 0 && checks < mmio + port);
            assert_eq!((wrong, seen), (0, 100));
        }
        assert!(number(&text, "UART lines") > 0);
        assert!(value(&text, "UART, last line").contains(", devices seen: "));
        assert_is_svg(&plot("right"));
    }
}

#[test]
fn devices_move_and_go_and_no_access_is_late() {
    for way in WAYS.iter() {
        let options = [&["--changes-per-second", "400"], *way].concat();
        let (_, text) = run_until("changes", LONGER, &options, |output, text| {
            passes(output, text)
                && number(text, "removals with a vCPU inside") > 0
                && number(text, "changes/s") >= 200
        });
        assert_nothing_wrong(&text);
        let changes = CHANGES.map(|kind| number(&text, kind));
        assert!(changes.iter().all(|count| *count > 0), "{changes:?}");
        assert_eq!(number(&text, "changes"), changes.iter().sum());
        let removals = changes[0] + number(&text, "single removals");
        let quiescent = value(&text, "from removal to quiescence");
        assert!(quiescent.ends_with(&format!("(of {removals})")));
        let moves = number(&text, "moves by a device's own handler");
        assert!(moves > 0);
        assert_eq!(number(&text, "doorbells moved"), moves);
        assert!(number(&text, "doorbell writes") > moves);
    }
}

#[test]
fn a_rate_that_cannot_be_kept_up_with_ends_in_time() {
    for way in WAYS.iter() {
        let options = [&["--changes-per-second", "100000"], *way].concat();
        let (_, text) = run_until("rate", EQUAL, &options, |output, text| {
            passes(output, text) && number(text, "changes/s") >= 200
        });
        assert_nothing_wrong(&text);
        assert!(number(&text, "changes/s") < 100_000);
        let seconds: f64 = value(&text, "seconds").parse().expect("a number");
        assert!(seconds < 20.0);
    }
}

/// Runs the demo with a fault, in every way, until the fault is found, and returns the output of each way. Only a run
/// whose vCPUs starve may miss it, or one in which a vCPU is by chance not inside a device when it is poisoned.
fn sabotaged(what: &'static str) -> impl Iterator<Item = String> {
    sabotaged_until(what, |_| true)
}

/// The same, until the output is also `complete`, which takes CPU time for each vCPU.
fn sabotaged_until(
    what: &'static str,
    complete: impl Fn(&str) -> bool,
) -> impl Iterator<Item = String> {
    WAYS.iter().map(move |way| {
        let options = [&["--sabotage", what], *way].concat();
        let (_, text) = run_until(what, LONGER, &options, |output, text| {
            let status = output.status.code();
            let failed = status == Some(1);
            let may_miss = status == Some(3) || status == Some(0) && what == "poison";
            assert!(failed || may_miss, "{status:?}");
            assert_eq!(failed, verdict(text).starts_with("failed: "));
            failed && complete(text)
        });
        text
    })
}

#[test]
fn a_wrong_value_is_found() {
    let by_all = |text: &str| rows(text).iter().all(|row| row[6] > 0);
    for text in sabotaged_until("slot", by_all) {
        assert!(number(&text, "wrong values") > 0);
        let first = value(&text, "first wrong value, vCPU 0");
        assert!(first.starts_with("MMIO 0xd0000004 read as "));
    }
}

#[test]
fn a_change_that_is_not_made_at_one_instant_is_found() {
    for text in sabotaged("shift") {
        assert!(number(&text, "wrong values") > 0);
        assert!(text.contains(": MMIO 0xc1000000 read as 0xffffffff, not as "));
    }
}

#[test]
fn a_device_that_does_not_move_itself_is_found() {
    for text in sabotaged("bar") {
        assert!(number(&text, "wrong values") > 0);
        assert!(text.contains(": MMIO 0xc80") && text.contains(", not as 0xffffffff\n"));
    }
}

#[test]
fn a_doorbell_that_does_not_follow_its_device_is_found() {
    for text in sabotaged("doorbell") {
        assert!(number(&text, "doorbell writes that exited") > 0);
        assert!(number(&text, "late doorbell rings") > 0);
        assert_eq!(number(&text, "lost doorbell rings"), 0);
        assert_eq!(number(&text, "wrong values"), 0);
    }
}

#[test]
fn an_access_to_a_card_that_was_never_there_is_counted() {
    for text in sabotaged("stray") {
        assert!(number(&text, "accesses astray") > 0);
        assert!(verdict(&text).contains("an access reached the wrong device "));
    }
}

#[test]
fn a_device_that_fails_is_counted() {
    for text in sabotaged("failure") {
        assert!(number(&text, "accesses that failed") > 0);
        assert!(verdict(&text).contains("devices answered with an error "));
    }
}

#[test]
fn a_late_access_is_counted() {
    for text in sabotaged("poison") {
        assert!(number(&text, "late accesses") > 0);
        assert_eq!(number(&text, "wrong values"), 0);
        assert!(verdict(&text).contains("a vCPU was inside a quiescent device "));
    }
}

#[test]
fn a_hot_added_device_that_is_not_found_is_noticed() {
    for text in sabotaged("hidden") {
        assert!(number(&text, "reads that missed a hot-added device") > 0);
        assert_eq!(number(&text, "wrong values"), 0);
        assert!(verdict(&text).contains("a read missed a device that had been hot-added "));
        assert!(!verdict(&text).contains("saw only"));
        let added = number(&text, "hot-adds");
        assert!(rows(&text).iter().all(|row| row[7] < added));
    }
}

#[test]
fn a_table_that_is_never_dropped_is_noticed() {
    // Otherwise a vCPU that has not done a whole round since may be inside one of them.
    let after_whole_rounds =
        |text: &str| verdict(text).contains("though every vCPU has done a whole round since");
    for text in sabotaged_until("hold", after_whole_rounds) {
        assert!(number(&text, "removed devices still in use") > 0);
    }
}

#[test]
fn a_vcpu_that_is_stuck_is_not_starved() {
    for text in sabotaged("stuck") {
        assert_eq!(number(&text, "wrong values"), 0);
        assert!(verdict(&text).contains(" saw only "));
        assert!(verdict(&text).contains("vCPU 0 may be inside a device that was removed"));
    }
}

#[test]
#[cfg(target_os = "linux")]
fn a_vcpu_with_too_little_cpu_time_is_starved_and_has_not_failed() {
    let cpus = thread::available_parallelism().expect("a number of CPUs");
    if WAYS.len() < 2 || cpus.get() > 8 {
        eprintln!("skipped: without KVM, or with {cpus} CPUs, no vCPU is starved");
        return;
    }
    // Each vCPU must read 16,384 times, and 64 of them share the CPUs.
    let options = [
        "--seconds",
        "1",
        "--vcpus",
        "64",
        "--adds-per-second",
        "4000",
    ];
    let _all = CPUS.write().unwrap_or_else(PoisonError::into_inner);
    let (output, text) = output_of(&mut demo("starved", &options));
    // A machine that is fast enough passes.
    if output.status.code() != Some(0) {
        assert_eq!(output.status.code(), Some(3));
        assert!(verdict(&text).starts_with("starved: vCPU "));
        assert!(verdict(&text).contains(" saw only "));
        assert!(verdict(&text).contains(" it had a CPU for "));
    }
    for never in &NEVER[..5] {
        assert_eq!(number(&text, never), 0, "{never}");
    }
}

#[test]
fn one_of_a_kind_is_singular() {
    for way in WAYS.iter() {
        let options = [&["--vcpus", "1", "--adds-per-second", "1"], *way].concat();
        let (output, text) = run_until("one", ["1"; 5], &options, passes);
        assert!(verdict(&text).starts_with("passed: 1 vCPU checked "));
        assert!(verdict(&text).contains(" beside 1 hot-added device and "));
        assert!(value(&text, "mode").starts_with("1 vCPU as a "));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(errors.contains("for 1 second; "));
        assert!(
            fs::read_to_string(plot("one"))
                .expect("a plot")
                .contains("1 vCPU as a ")
        );
    }
}

#[test]
fn a_quiet_baseline_checks_all_that_is_there() {
    for way in WAYS.iter() {
        let quiet = ["--adds-per-second", "0", "--changes-per-second", "0"];
        for quiet in [&quiet[..2], &quiet[2..], &quiet[..]] {
            let options = [&["--vcpus", "2"], quiet, *way].concat();
            let (_, text) = passed("quiet", &options);
            assert!(verdict(&text).starts_with("passed: 2 vCPUs checked "));
            assert_nothing_wrong(&text);
            assert!(rows(&text).iter().all(|row| row[5] > 0));
            let no_adds = quiet.contains(&"--adds-per-second");
            assert_eq!(number(&text, "hot-adds") == 0, no_adds);
            assert_eq!(
                value(&text, "duration of a hot-add call") == "none",
                no_adds
            );
            let no_changes = quiet.contains(&"--changes-per-second");
            assert_eq!(number(&text, "changes") == 0, no_changes);
            assert_eq!(
                value(&text, "from removal to quiescence") == "none",
                no_changes
            );
            let moves = number(&text, "moves by a device's own handler");
            assert_eq!(moves == 0, no_changes);
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn the_report_is_there_though_the_plot_fails() {
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    demo.args(["--seconds", "1", "--threads", "--plot", "/dev/full"]);
    let mut runs = (0..5).map(|_| output(&mut demo));
    let not_starved = runs.find(|(_, text)| !verdict(text).starts_with("starved: "));
    let (output, text) = not_starved.expect("vCPUs do not starve in every run");
    assert_eq!(output.status.code(), Some(1));
    assert!(verdict(&text).starts_with("passed: "));
    assert_eq!(rows(&text).len(), 4);
    assert!(text.contains("Memory map:"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(errors.contains("error: cannot write the plot /dev/full: "));
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_it_with_the_report_so_far() {
    for way in WAYS.iter() {
        let _share = CPUS.read().unwrap_or_else(PoisonError::into_inner);
        let mut child = demo("ctrl-c", &[&["--seconds", "60"], *way].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the demo runs");
        let started = Instant::now();
        let mut errors = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut first = String::new();
        errors.read_line(&mut first).expect("a line");
        assert!(
            first.ends_with("for 60 seconds; Ctrl-C ends it\n"),
            "{first}"
        );
        thread::sleep(Duration::from_secs(1));
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
        let output = child.wait_with_output().expect("it ends");
        let others = errors.lines().map_while(Result::ok);
        others.for_each(|line| println!("{line}"));
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(output.status.code(), Some(130));
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(verdict(&text).starts_with("interrupted after "));
        assert!(verdict(&text).contains(": nothing wrong so far: 4 vCPUs checked "));
        assert_eq!(rows(&text).len(), 4);
        assert_nothing_wrong(&text);
        assert!(text.contains("Memory map:") && text.contains("\nplot: "));
    }
}

/// The headings of the live view, a device that each guest uses all the time, and an address that each guest misses.
#[cfg(target_os = "linux")]
const SHOWN: [&str; 5] = ["devices", "missed", "map", "queue", "0xcfff0000"];

/// The size of the terminal.
#[cfg(target_os = "linux")]
const ROWS: u16 = 40;
#[cfg(target_os = "linux")]
const COLUMNS: u16 = 150;

/// Types `key` into the live view when it shows all of that. Returns the exit status and the whole output of the
/// terminal; `None` if no terminal is available.
#[cfg(target_os = "linux")]
fn live_view(way: &[&str], key: u8) -> Option<(Option<i32>, String)> {
    let version = Command::new("script").arg("--version").output();
    if !version.is_ok_and(|version| version.stdout.ends_with(b"\n") && version.status.success()) {
        eprintln!("skipped: no script of util-linux, which makes a terminal");
        return None;
    }
    let _share = CPUS.read().unwrap_or_else(PoisonError::into_inner);
    let plot = Path::new(env!("CARGO_TARGET_TMPDIR")).join("top.svg");
    let demo = format!(
        "stty rows {ROWS} cols {COLUMNS}; exec {} --top --seconds 60 --vcpus 2 --plot {} {}",
        env!("CARGO_BIN_EXE_demo"),
        plot.display(),
        way.join(" ")
    );
    let mut script = Command::new("script")
        .args(["-qec", &demo, "/dev/null"])
        .env("TERM", "xterm")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script runs");
    let mut stdin = script.stdin.take().expect("a pipe");
    let mut stdout = script.stdout.take().expect("a pipe");
    let (mut all, mut some) = (Vec::new(), [0; 4096]);
    let mut terminal = vt100::Parser::new(ROWS, COLUMNS, 0);
    let mut typed = false;
    loop {
        let length = stdout.read(&mut some).expect("what it shows");
        if length == 0 {
            break;
        }
        all.extend_from_slice(&some[..length]);
        terminal.process(&some[..length]);
        let screen = terminal.screen().contents();
        if !typed && SHOWN.iter().all(|part| screen.contains(part)) {
            stdin.write_all(&[key]).expect("a key");
            typed = true;
        }
    }
    assert!(typed, "not all of {SHOWN:?} was shown");
    let status = script.wait().expect("it ends");
    let text = String::from_utf8_lossy(&all).replace("\r\n", "\n");
    Some((status.code(), text))
}

#[test]
#[cfg(target_os = "linux")]
fn the_live_view_shows_devices_until_q() {
    for way in WAYS.iter() {
        let Some((status, text)) = live_view(way, b'q') else {
            return;
        };
        assert_eq!(status, Some(0), "{text}");
        // The alternate screen, and back.
        let (_, shown) = text.split_once("\x1b[?1049h").expect("a screen");
        let (_, after) = shown.split_once("\x1b[?1049l").expect("no screen");
        assert!(after.contains("verdict: passed, and ended by q after "));
        assert_nothing_wrong(after);
    }
}

#[test]
#[cfg(target_os = "linux")]
fn ctrl_c_in_the_live_view_is_an_interrupt() {
    let Some((status, text)) = live_view(&["--threads"], 3) else {
        return;
    };
    assert_eq!(status, Some(130), "{text}");
    let (_, after) = text.split_once("\x1b[?1049l").expect("no screen");
    assert!(after.contains("verdict: interrupted after "));
}

#[test]
fn the_live_view_needs_a_terminal() {
    let (output, text) = output(&mut demo("no-terminal", &["--top"]));
    assert_eq!(output.status.code(), Some(1));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(text.is_empty() && errors.starts_with("error: --top needs a terminal"));
}

#[test]
fn bad_options_are_refused() {
    for (options, said) in [
        (&["--vcpus", "0"][..], "0 is not in 1..=64"),
        (&["--vcpus", "65"], "65 is not in 1..=64"),
        (&["--vcpus", "-1"], "unexpected argument"),
        (&["--seconds", "0"], "0 is not in 1..=3600"),
        (&["--seconds", "4000"], "4000 is not in 1..=3600"),
        (&["--seconds", "1.5"], "--seconds"),
        (&["--adds-per-second", "99999"], "99999 is not in 0..=16384"),
        (
            &["--seconds", "3600", "--adds-per-second", "5"],
            "5 hot-adds a second for 3600 seconds are 18000; there is room for 16384",
        ),
        (
            &["--changes-per-second", "100001"],
            "100001 is not in 0..=100000",
        ),
        (
            &[
                "--seconds",
                "3600",
                "--adds-per-second",
                "1",
                "--changes-per-second",
                "2000",
            ],
            "a run makes fewer than 4194303",
        ),
        (&["--sabotage", "all"], "--sabotage"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let (output, text) = output(&mut demo("refused", options));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.is_empty());
        assert!(
            errors.starts_with("error: ") && errors.contains(said),
            "{errors}"
        );
    }
}

#[test]
fn a_plot_that_cannot_be_written_is_refused_at_once() {
    let nowhere = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nowhere/smp.svg");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_demo"));
    let (output, text) = output(demo.arg("--plot").arg(nowhere));
    assert!(!output.status.success() && text.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: cannot write the plot "));
}

#[test]
fn help_names_every_option() {
    let (output, text) = output(Command::new(env!("CARGO_BIN_EXE_demo")).arg("--help"));
    assert!(output.status.success());
    for option in [
        "--seconds",
        "--vcpus",
        "--adds-per-second",
        "--changes-per-second",
        "--threads",
        "--top",
        "--plot",
    ] {
        assert!(text.contains(option), "{option}");
    }
    assert!(text.contains("Exit status: 0 ") && text.contains("3 vCPUs were starved"));
}
