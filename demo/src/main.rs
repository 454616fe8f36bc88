//! An SMP virtual machine on one `SharedVmDevices`: every vCPU is a thread, the registry answers
//! every VM exit, and meanwhile devices are hot-added, where the guests already look for them, moved
//! and removed. The guests check every value that they read, and the devices that nobody comes late.

// Some devices and the contract are `metal`'s too, which has no standard library.
extern crate alloc;

mod adder;
mod belts;
mod changer;
mod contract;
mod devices;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod kvm;
#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
#[path = "no_kvm.rs"]
mod kvm;
mod options;
mod plot;
mod removals;
mod report;
mod session;
mod threads;
mod vcpus;
mod vm;

use std::{
    fs::File,
    io::{Write as _, stdout},
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Parser as _;

use crate::{changer::Changer, options::Options, session::Record, vcpus::Vcpus, vm::Vm};

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<()> {
    options.adds()?;
    options.check_changes()?;
    let plot = options.plot_file()?;
    // Now, not when there is something to lose.
    File::create(&plot).with_context(|| format!("the plot, {}", plot.display()))?;
    let interrupted = end_on_ctrl_c()?;

    let vm = Arc::new(Vm::new(options.vcpus, options.sabotage)?);
    let changer = Changer::new(&vm, options.changes_per_second)?;
    let (mode, vcpus) = start(options, &vm)?;
    let record = session::conduct(options, changer, &vm, vcpus, &interrupted)?;

    let text = report::text(&vm, &record)?;
    let title = format!(
        "{} vCPUs on one registry, as {mode}, under {} changes/s",
        options.vcpus,
        report::changes_per_second(&record),
    );
    plot::write(&plot, &title, &record).with_context(|| format!("the plot, {}", plot.display()))?;
    write!(stdout(), "\n{text}\nplot: {}\n", plot.display())?;
    verdict(&vm, record)
}

/// A flag that Ctrl-C raises.
fn end_on_ctrl_c() -> Result<Arc<AtomicBool>> {
    let interrupted = Arc::new(AtomicBool::new(false));
    let flag = interrupted.clone();
    ctrlc::set_handler(move || flag.store(true, Ordering::Relaxed)).context("Ctrl-C")?;
    Ok(interrupted)
}

/// Starts the vCPUs, in KVM if it can be had, and says what they are.
fn start(options: &Options, vm: &Arc<Vm>) -> Result<(&'static str, Vcpus)> {
    let machine = match options.threads {
        true => Err(anyhow!("--threads was given")),
        false => kvm::open(),
    };
    let (mode, note, vcpus) = match machine {
        Ok(machine) => ("KVM guests", String::new(), kvm::start(vm, machine)?),
        Err(why) => ("plain threads", format!(" ({why:#})"), threads::start(vm)?),
    };
    writeln!(stdout(), "mode: {} vCPUs as {mode}{note}", options.vcpus)?;
    Ok((mode, vcpus))
}

/// An error if the run did not show what it is to show.
fn verdict(vm: &Vm, record: Record) -> Result<()> {
    let blind = report::blind(vm, &record);
    record.ended?;
    if report::wrong(vm) > 0 {
        bail!("the guests read wrong values");
    }
    if report::failed(vm) > 0 {
        bail!("devices failed");
    }
    if report::late(vm) > 0 {
        bail!("vCPUs were inside devices that should have been out of use");
    }
    if report::astray(vm) > 0 {
        bail!("accesses came to devices that they were not for");
    }
    if record.changes.pending > 0 {
        bail!(
            "{} removed devices are still in use",
            record.changes.pending
        );
    }
    if let Some((vcpu, seen)) = blind {
        bail!("vCPU {vcpu} saw only {seen} of the hot-added devices");
    }
    Ok(())
}
