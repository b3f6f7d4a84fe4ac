//! The terminal: tabs, what is counted in all, the table, and which keys there are.

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Paragraph, Row, Table as Grid, Tabs};

use super::screen::Screen;
use super::table::{Cell, Unit};
use super::view::{Tab, View};

const KEYS: &str = "1-5 tab  s/S sort  r reverse  / filter  p pause  q quit";

pub(super) fn draw(frame: &mut Frame<'_>, view: &View, screen: &mut Screen) {
    let areas = Layout::vertical([
        Constraint::Length(1),
        Constraint::Length(1),
        Constraint::Min(1),
        Constraint::Length(1),
    ]);
    let [tabs, totals, rows, foot] = areas.areas(frame.area());
    let selected = Tab::ALL.iter().position(|tab| *tab == screen.tab);
    let titles = Tab::ALL.iter().enumerate().map(|(at, tab)| format!("{} {}", at + 1, tab.word()));
    let shown = Tabs::new(titles).select(selected).highlight_style(Modifier::REVERSED);
    frame.render_widget(shown, tabs);
    frame.render_widget(Paragraph::new(summary(view)), totals);
    table(frame, rows, view, screen);
    frame.render_widget(Paragraph::new(footer(screen)), foot);
}

/// Of all flows, whether they are shown or not.
pub(super) fn summary(view: &View) -> String {
    let totals = view.totals();
    if totals.seconds == 0.0 {
        return "waiting for the first epoch".to_owned();
    }
    let rate = |number: u64, unit: Unit| {
        let scale = if unit == Unit::BitRate { 8.0 } else { 1.0 };
        Cell::Number(number as f64 * scale / totals.seconds, unit).shown()
    };
    format!(
        "{}  {} packets  over {:.0} s",
        rate(totals.octets, Unit::BitRate),
        rate(totals.packets, Unit::Rate),
        totals.seconds
    )
}

fn footer(screen: &Screen) -> Line<'_> {
    if screen.typing {
        return Line::from(vec![Span::raw("filter: "), Span::raw(&screen.filter), Span::raw("_")]);
    }
    let mut spans = vec![Span::raw(KEYS)];
    if !screen.filter.is_empty() {
        spans.push(Span::raw("  filter: "));
        spans.push(Span::styled(&screen.filter, Modifier::BOLD));
    }
    if screen.is_paused() {
        spans.push(Span::styled("  paused", Modifier::REVERSED));
    }
    Line::from(spans)
}

fn table(frame: &mut Frame<'_>, area: Rect, view: &View, screen: &mut Screen) {
    let table = screen.table(view);
    let order = screen.order();
    let header =
        table.columns.iter().enumerate().map(|(at, column)| match (at == order.column, order.descending) {
            (true, true) => format!("{column} v"),
            (true, false) => format!("{column} ^"),
            (false, _) => (*column).to_owned(),
        });
    let header = Row::new(header).style(Modifier::BOLD);
    let rows = table.rows.iter().skip(screen.top).take(usize::from(area.height));
    let rows = rows.map(|row| Row::new(row.iter().map(Cell::shown)).style(style(screen.tab, row)));
    let grid = Grid::new(rows, screen.tab.widths()).header(header).block(Block::new()).column_spacing(2);
    frame.render_widget(grid, area);
}

/// What is bad is red, unless the terminal is to have no colours.
fn style(tab: Tab, row: &[Cell]) -> Style {
    let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let worst = tab == Tab::Detections
        && matches!(row.first(), Some(Cell::Text(severity)) if severity.starts_with(['3', '4']));
    if worst && colours { Style::new().fg(Color::Red) } else { Style::new() }
}
