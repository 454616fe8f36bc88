//! The contents of the live view, as plain data, and their drawing.

use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Style, Stylize as _},
    text::{Line, Span, Text},
    widgets::{Block, Paragraph, Row, Table},
};

/// A picture.
#[derive(Clone, Debug, Default)]
pub(super) struct Screen {
    pub(super) title: String,
    /// Names and values.
    pub(super) counters: Vec<(&'static str, String)>,
    pub(super) devices: Vec<DeviceRow>,
    pub(super) missed: Vec<MissedRow>,
    /// The memory map, line by line.
    pub(super) map: Vec<String>,
}

/// A device.
#[derive(Clone, Debug)]
pub(super) struct DeviceRow {
    pub(super) name: String,
    pub(super) range: String,
    /// In a second.
    pub(super) reads: u64,
    pub(super) writes: u64,
}

/// An address that no device owns.
#[derive(Clone, Debug)]
pub(super) struct MissedRow {
    pub(super) address: String,
    /// In a second.
    pub(super) rate: u64,
}

impl Screen {
    /// Draws the part of it that fits.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let rows = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(1),
            Constraint::Fill(1),
        ]);
        let [title, counters, below] = rows.areas(frame.area());
        frame.render_widget(Line::from(self.title.as_str()).bold(), title);
        frame.render_widget(self.counters(), counters);
        let columns = Layout::horizontal([Constraint::Fill(3), Constraint::Fill(2)]);
        let [left, right] = columns.areas(below);
        let rows = Layout::vertical([Constraint::Fill(1), Constraint::Fill(1)]);
        let [missed, map] = rows.areas(right);
        self.draw_devices(frame, left);
        self.draw_missed(frame, missed);
        self.draw_map(frame, map);
    }

    fn counters(&self) -> Line<'_> {
        let spans = self.counters.iter().flat_map(|(name, value)| {
            let name = Span::from(format!("{name}: "));
            [name, Span::from(value.as_str()).bold(), Span::from("  ")]
        });
        spans.collect()
    }

    fn draw_devices(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self.devices.iter().map(|row| {
            let [reads, writes] = [row.reads, row.writes].map(number);
            let [name, range] = [&row.name, &row.range].map(|text| Text::from(text.as_str()));
            Row::new([reads, writes, name, range])
        });
        let widths = [
            Constraint::Length(10),
            Constraint::Length(10),
            Constraint::Length(20),
            Constraint::Fill(1),
        ];
        let head = ["   reads/s", "  writes/s", "device", "range"];
        frame.render_widget(table(rows, &widths, &head, "devices"), area);
    }

    fn draw_missed(&self, frame: &mut Frame<'_>, area: Rect) {
        let rows = self
            .missed
            .iter()
            .map(|row| Row::new([number(row.rate), Text::from(row.address.as_str())]));
        let widths = [Constraint::Length(10), Constraint::Fill(1)];
        let head = ["  misses/s", "address"];
        frame.render_widget(table(rows, &widths, &head, "missed addresses"), area);
    }

    fn draw_map(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = Block::bordered().title("memory map");
        let room = usize::from(block.inner(area).height);
        let mut lines: Vec<Line<'_>> = self
            .map
            .iter()
            .map(|line| Line::from(line.as_str()))
            .collect();
        if lines.len() > room {
            lines.truncate(room.saturating_sub(1));
            let left_out = self.map.len() - lines.len();
            lines.push(Line::from(format!("… {left_out} more")));
        }
        frame.render_widget(Paragraph::new(lines).block(block), area);
    }
}

fn table<'t>(
    rows: impl IntoIterator<Item = Row<'t>>,
    widths: &[Constraint],
    head: &[&'static str],
    title: &'static str,
) -> Table<'t> {
    Table::new(rows, widths.iter().copied())
        .header(Row::new(head.iter().copied()).style(Style::new().bold()))
        .block(Block::bordered().title(title))
}

/// Aligns text to the right end of a column.
fn number(count: u64) -> Text<'static> {
    Text::from(count.to_string()).right_aligned()
}

#[cfg(test)]
mod tests {
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn screen() -> Screen {
        let device = |name: &str, range: &str, reads| DeviceRow {
            name: name.into(),
            range: range.into(),
            reads,
            writes: 7,
        };
        Screen {
            title: "2 vCPUs as KVM guests, for 1.00 s; q ends it".into(),
            counters: vec![
                ("exits/s", "90210".into()),
                ("so far", "nothing wrong".into()),
            ],
            devices: vec![
                device("slot 12", "mmio 0xd000c000..=0xd000c01f", 4321),
                device("removed devices", "", 0),
            ],
            missed: vec![MissedRow {
                address: "mmio 0xcfff0000".into(),
                rate: 55,
            }],
            map: (0..30).map(|n| format!("mmio line {n}")).collect(),
        }
    }

    /// The lines of a picture of this size.
    fn lines(screen: &Screen, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        (0..height).map(line).collect()
    }

    #[test]
    fn all_parts_are_shown() {
        let lines = lines(&screen(), 140, 16);
        assert!(lines[0].starts_with("2 vCPUs as KVM guests, for 1.00 s; q ends it"));
        assert!(lines[1].starts_with("exits/s: 90210  so far: nothing wrong"));
        assert!(lines[2].starts_with("┌devices─") && lines[2].contains("┌missed addresses─"));
        assert!(lines[3].contains("   reads/s   writes/s device"));
        assert!(lines[3].contains("  misses/s address"));
        let device = "      4321          7 slot 12              mmio 0xd000c000..=0xd000c01f";
        assert!(lines[4].contains(device), "{}", lines[4]);
        assert!(lines[4].contains("        55 mmio 0xcfff0000"));
        assert!(lines[5].contains("         0          7 removed devices "));
        assert!(lines[9].contains("┌memory map─"));
        assert!(lines[10].contains("│mmio line 0 "));
    }

    #[test]
    fn a_map_that_is_too_long_says_how_much_is_left_out() {
        let lines = lines(&screen(), 140, 16);
        assert!(lines[13].contains("│mmio line 3 ") && lines[14].contains("│… 26 more "));
        let map = (0..5).map(|n| format!("mmio line {n}")).collect();
        let short = self::lines(&Screen { map, ..screen() }, 140, 16);
        assert!(short[14].contains("│mmio line 4 "));
    }

    #[test]
    fn there_may_be_no_room_at_all() {
        for (width, height) in [(1, 1), (10, 2), (20, 5), (3, 40)] {
            assert_eq!(lines(&screen(), width, height).len(), usize::from(height));
        }
    }
}
