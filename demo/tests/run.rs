//! Runs the demo as a user would, with KVM where there is one and without, and reads what it says.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

/// The demo with these options, a plot file of the test's own, and output that is no terminal.
fn demo(test: &str, options: &[&str]) -> (Command, PathBuf) {
    let plot = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{test}.svg"));
    // Of an earlier run; most often there is none.
    let _ = fs::remove_file(&plot);
    let mut command = Command::new(env!("CARGO_BIN_EXE_smp"));
    command.args(options).arg("--plot").arg(&plot);
    (command, plot)
}

fn output(command: &mut Command) -> (Output, String) {
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

/// The ways to run it here.
static WAYS: LazyLock<Vec<&[&str]>> = LazyLock::new(|| {
    let (_, text) = output(&mut demo("probe", &["--seconds", "1", "--vcpus", "1"]).0);
    if text.contains("as KVM guests") {
        return vec![&[], &["--threads"]];
    }
    let mode = text.lines().next().unwrap_or_default();
    eprintln!("skipped: runs in KVM, for want of it here ({mode})");
    vec![&["--threads"]]
});

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

/// The table's rows, a vCPU each.
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

fn assert_is_svg(plot: &Path) {
    let svg = fs::read_to_string(plot).expect("a plot");
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
    assert!(svg.contains("vCPU 0") && svg.contains("hot-add"));
    assert!(svg.contains("<polyline"));
}

#[test]
fn every_vcpu_sees_every_device_and_nothing_wrong() {
    for way in WAYS.iter() {
        let (mut demo, plot) = demo("right", &["--seconds", "2", "--vcpus", "3"]);
        let (output, text) = output(demo.args(*way));
        assert!(output.status.success());
        assert_eq!(number(&text, "wrong values"), 0);
        assert_eq!(number(&text, "hot-adds"), 100);
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
        assert!(value(&text, "UART, last line").ends_with(" devices seen"));
        assert_is_svg(&plot);
    }
}

#[test]
fn devices_move_and_go_and_nobody_comes_late() {
    for way in WAYS.iter() {
        let (mut demo, _) = demo(
            "changes",
            &["--seconds", "3", "--changes-per-second", "400"],
        );
        let (output, text) = output(demo.args(*way));
        assert!(output.status.success());
        for never in [
            "wrong values",
            "late accesses",
            "accesses astray",
            "removed devices still in use",
            "doorbell writes that exited",
            "late doorbell rings",
            "lost doorbell rings",
        ] {
            assert_eq!(number(&text, never), 0, "{never}");
        }
        let changes = CHANGES.map(|kind| number(&text, kind));
        assert!(changes.iter().all(|count| *count > 0), "{changes:?}");
        assert_eq!(number(&text, "changes"), changes.iter().sum());
        assert!(number(&text, "changes/s") >= 200);
        let removals = changes[0] + number(&text, "single removals");
        let quiescent = value(&text, "from removal to quiescence, µs");
        assert!(quiescent.ends_with(&format!("(of {removals})")));
        assert!(number(&text, "removals with a vCPU inside") > 0);
        let moves = number(&text, "moves by a device's own handler");
        assert!(moves > 0);
        assert_eq!(number(&text, "doorbells moved"), moves);
        assert!(number(&text, "doorbell writes") > moves);
    }
}

#[test]
fn a_rate_that_cannot_be_kept_up_with_ends_in_time() {
    for way in WAYS.iter() {
        let (mut demo, _) = demo(
            "rate",
            &["--seconds", "1", "--changes-per-second", "100000"],
        );
        let started = Instant::now();
        let (output, text) = output(demo.args(*way));
        assert!(output.status.success());
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!((200..100_000).contains(&number(&text, "changes/s")));
    }
}

/// Runs the demo with something going wrong, in every way, and gives what each printed.
fn sabotaged(what: &'static str) -> impl Iterator<Item = String> {
    WAYS.iter().map(move |way| {
        let (mut demo, _) = demo(what, &["--seconds", "1", "--sabotage", what]);
        let (output, text) = output(demo.args(*way));
        assert_eq!(output.status.code(), Some(1));
        text
    })
}

#[test]
fn a_wrong_value_is_found() {
    for text in sabotaged("slot") {
        assert!(number(&text, "wrong values") > 0);
        assert!(rows(&text).iter().all(|row| row[6] > 0));
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
fn a_late_access_is_counted() {
    for text in sabotaged("poison") {
        assert!(number(&text, "late accesses") > 0);
        assert_eq!(number(&text, "wrong values"), 0);
    }
}

#[test]
#[cfg(unix)]
fn ctrl_c_ends_it_with_the_table() {
    for way in WAYS.iter() {
        let (mut demo, _) = demo("ctrl-c", &["--seconds", "60"]);
        let child = demo
            .args(*way)
            .stdout(Stdio::piped())
            .spawn()
            .expect("the demo runs");
        let started = Instant::now();
        thread::sleep(Duration::from_secs(1));
        let kill = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(kill.expect("kill runs").success());
        let output = child.wait_with_output().expect("it ends");
        assert!(started.elapsed() < Duration::from_secs(20));
        assert!(output.status.success());
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(rows(&text).len(), 4);
        assert_eq!(number(&text, "wrong values"), 0);
    }
}

#[test]
fn bad_options_are_refused() {
    for (options, said) in [
        (&["--vcpus", "0"][..], "--vcpus"),
        (&["--vcpus", "65"], "--vcpus"),
        (&["--vcpus", "-1"], "unexpected argument"),
        (&["--seconds", "0"], "--seconds"),
        (&["--seconds", "4000"], "--seconds"),
        (&["--seconds", "1.5"], "--seconds"),
        (&["--adds-per-second", "0"], "--adds-per-second"),
        (&["--adds-per-second", "99999"], "--adds-per-second"),
        (
            &["--seconds", "3600", "--adds-per-second", "5"],
            "there is room for 16384",
        ),
        (&["--changes-per-second", "0"], "--changes-per-second"),
        (
            &[
                "--seconds",
                "3600",
                "--adds-per-second",
                "1",
                "--changes-per-second",
                "2000",
            ],
            "there are numbers for 4194303",
        ),
        (&["--sabotage", "all"], "--sabotage"),
        (&["--frobnicate"], "--frobnicate"),
    ] {
        let (output, text) = output(&mut demo("refused", options).0);
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
    let mut demo = Command::new(env!("CARGO_BIN_EXE_smp"));
    let (output, text) = output(demo.arg("--plot").arg(nowhere));
    assert!(!output.status.success() && text.is_empty());
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: the plot"));
}

#[test]
fn help_names_every_option() {
    let (output, text) = output(Command::new(env!("CARGO_BIN_EXE_smp")).arg("--help"));
    assert!(output.status.success());
    for option in [
        "--seconds",
        "--vcpus",
        "--adds-per-second",
        "--changes-per-second",
        "--threads",
        "--plot",
    ] {
        assert!(text.contains(option), "{option}");
    }
}
