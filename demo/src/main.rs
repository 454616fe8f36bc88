//! An SMP virtual machine on one `SharedVmDevices`: every vCPU is a thread, and the registry handles every VM exit
//! while devices are hot-added (at addresses that the guests poll), moved and removed. The guests check every value
//! that they read, and the devices count accesses that come after their removal.

mod changer;
mod counts;
mod devices;
mod doorbells;
mod host;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_kvm.rs"]
mod kvm;
mod names;
mod options;
mod plot;
mod profiles;
mod progress;
mod report;
mod session;
mod stop;
mod task;
mod threads;
mod top;
mod traffic;
mod units;
mod vcpus;
mod verdict;
mod vm;

use std::{
    fs::File,
    io::{Write as _, stderr, stdout},
    process::ExitCode,
    sync::Arc,
};

use anyhow::{Context as _, Result, anyhow};
use clap::Parser as _;
// Here the contract is `crate::contract`.
use guest::contract;

use crate::{
    changer::Changer,
    options::Options,
    stop::Stop,
    units::counted,
    vcpus::Vcpus,
    verdict::{FAILED, Verdict},
    vm::Vm,
};

fn main() -> ExitCode {
    let status = run(&Options::parse()).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        FAILED
    });
    status.into()
}

/// Runs the demo, and returns its exit status.
fn run(options: &Options) -> Result<u8> {
    options.adds()?;
    options.check_changes()?;
    if options.top {
        top::check_terminal()?;
    }
    let plot = options.plot_file()?;
    // Before the run, so an error loses no results.
    File::create(&plot).with_context(|| format!("cannot write the plot {}", plot.display()))?;
    let stop = Stop::on_ctrl_c()?;

    let vm = Arc::new(Vm::new(options.vcpus, options.sabotage)?);
    let changer = Changer::new(&vm, options.changes_per_second)?;
    let (mode, note, vcpus) = start(options, &vm)?;
    let seconds = counted(options.seconds.into(), "second");
    writeln!(
        stderr(),
        "running {mode}{note}, for {seconds}; Ctrl-C ends it"
    )?;
    let record = session::conduct(options, changer, &vm, vcpus, &stop, &mode)?;

    let verdict = Verdict::on(&vm, &record);
    let text = report::text(&vm, &record)?;
    writeln!(stdout(), "verdict: {verdict}\nmode: {mode}{note}\n\n{text}")?;
    let title = format!(
        "{mode}, on one registry, under {}/s",
        counted(report::changes_per_second(&record), "change"),
    );
    plot::write(&plot, &title, &record)
        .with_context(|| format!("cannot write the plot {}", plot.display()))?;
    writeln!(stdout(), "plot: {}", plot.display())?;
    Ok(verdict.status())
}

/// Starts the vCPUs, in KVM if that is available. Returns a description of them, a note on why KVM is not used, and the
/// vCPUs.
fn start(options: &Options, vm: &Arc<Vm>) -> Result<(String, String, Vcpus)> {
    let machine = match options.threads {
        true => Err(anyhow!("--threads was given")),
        false => kvm::open(),
    };
    let vcpus = counted(options.vcpus.into(), "vCPU");
    let each = |one: &str, several: &str| match options.vcpus {
        1 => format!("{vcpus} as {one}"),
        _ => format!("{vcpus} as {several}"),
    };
    Ok(match machine {
        Ok(machine) => {
            let mode = each("a KVM guest", "KVM guests");
            (mode, String::new(), kvm::start(vm, machine)?)
        }
        Err(why) => {
            let mode = each("a plain thread", "plain threads");
            (mode, format!(" ({why:#})"), threads::start(vm)?)
        }
    })
}
