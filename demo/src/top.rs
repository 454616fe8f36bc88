//! The live view: shows the devices that the guests access on the terminal, until the run is over or the user
//! quits.

mod screen;
mod watch;

use std::{
    io::{IsTerminal as _, stdin, stdout},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use self::watch::Watch;
use crate::{
    stop::{Reason, Stop},
    vcpus::Vcpus,
    vm::Vm,
};

/// The time from one picture to the next.
const REFRESH: Duration = Duration::from_millis(500);
/// The longest time between two checks whether the run is over.
const TICK: Duration = Duration::from_millis(50);

/// Fails without a terminal.
pub(crate) fn check_terminal() -> Result<()> {
    ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "--top needs a terminal, for output and keys"
    );
    Ok(())
}

/// Shows the VM, headed by `title`, until the run is `over`; keys end it through `stop`.
pub(crate) fn show(
    vm: &Vm,
    vcpus: &Vcpus,
    title: &str,
    stop: &Stop,
    over: &AtomicBool,
) -> Result<()> {
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let mut watch = Watch::new(vm, title);
    let shown = (|| {
        let mut due = Instant::now();
        while !over.load(Ordering::Relaxed) && stop.reason().is_none() {
            let now = Instant::now();
            if now >= due {
                due = now + REFRESH;
                let screen = watch.screen();
                terminal.draw(|frame| screen.draw(frame))?;
                // For the next picture.
                vm.profiles.ask();
                vcpus.kick();
            }
            if event::poll(TICK)?
                && let Some(reason) = ends(&event::read()?)
            {
                stop.set(reason);
            }
        }
        anyhow::Ok(())
    })();
    ratatui::try_restore().context("the terminal")?;
    shown
}

/// The reason why the run ends with this event, if it does. The terminal reports Ctrl-C as a key.
fn ends(event: &Event) -> Option<Reason> {
    let Event::Key(KeyEvent {
        code,
        modifiers,
        kind: KeyEventKind::Press,
        ..
    }) = event
    else {
        return None;
    };
    match code {
        KeyCode::Char('c') if modifiers.contains(KeyModifiers::CONTROL) => {
            Some(Reason::Interrupted)
        }
        KeyCode::Char('q') => Some(Reason::Quit),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn q_and_ctrl_c_end_the_run_and_no_other_key() {
        let key = |letter, modifiers| {
            let code = KeyCode::Char(letter);
            ends(&Event::Key(KeyEvent::new(code, modifiers)))
        };
        assert_eq!(key('q', KeyModifiers::NONE), Some(Reason::Quit));
        assert_eq!(key('c', KeyModifiers::CONTROL), Some(Reason::Interrupted));
        assert_eq!(key('c', KeyModifiers::NONE), None);
        assert_eq!(ends(&Event::Resize(80, 24)), None);
    }
}
