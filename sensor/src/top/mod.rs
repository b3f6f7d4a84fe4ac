//! `weir-sensor top`: what a sensor counts, live on a terminal.
//!
//! [`View`] takes in epochs as they are shipped ([`crate::live`]) and makes rows; [`Screen`] is what a person has chosen to
//! see of them, and answers keys; `draw` puts it on the terminal. [`report`] prints the same once, for scripts.

mod draw;
mod screen;
mod table;
mod view;

use std::io::Write;
use std::time::Duration;

use anyhow::Context as _;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use serde_json::{Map, Value, json};
use tokio::sync::mpsc;

pub use screen::{Answer, Screen};
pub use table::{Cell, Order, Table, Unit};
pub use view::{Tab, View};

use crate::live::socket::Epochs;

/// Takes in the next epoch.
async fn next(epochs: &mut Epochs, view: &mut View) -> anyhow::Result<()> {
    let parts = epochs.next().await.context("the sensor has stopped")?;
    for part in parts {
        view.add(weir_wire::decode(&part).context("read what the sensor shows")?);
    }
    Ok(())
}

/// Shows it until a key ends it.
pub async fn watch(mut epochs: Epochs, span: Duration) -> anyhow::Result<()> {
    let (mut view, mut screen) = (View::new(span), Screen::default());
    let mut terminal = ratatui::try_init().context("take the terminal")?;
    let mut keys = keys();
    let outcome = loop {
        if let Err(error) = terminal.draw(|frame| draw::draw(frame, &view, &mut screen)) {
            break Err(error).context("draw on the terminal");
        }
        tokio::select! {
            shown = next(&mut epochs, &mut view) => if let Err(error) = shown {
                break Err(error);
            },
            event = keys.recv() => match event {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => {
                    if screen.key(key) == Answer::Quit {
                        break Ok(());
                    }
                }
                // Another size is drawn at once.
                Some(_) => {}
                None => break Err(anyhow::anyhow!("the terminal has gone")),
            },
        }
    };
    ratatui::restore();
    outcome
}

/// What happens at the terminal; reading it blocks, so a thread does.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(16);
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}

/// How a report is written.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// It is about so long.
    pub span: Duration,
    /// Rows of each table.
    pub rows: usize,
    pub json: bool,
}

/// Watches for as long as the report is about, then writes it: all tables, each in its first order.
pub async fn report(mut epochs: Epochs, report: Report, out: &mut impl Write) -> anyhow::Result<()> {
    let mut view = View::new(report.span);
    let watched = async {
        loop {
            if let Err(error) = next(&mut epochs, &mut view).await {
                return error;
            }
        }
    };
    if let Ok(error) = tokio::time::timeout(report.span, watched).await {
        return Err(error);
    }
    write(&view, report, out).context("write the report")
}

fn write(view: &View, report: Report, out: &mut impl Write) -> std::io::Result<()> {
    let tables = Tab::ALL.map(|tab| {
        let mut table = view.table(tab);
        table.sort(&Order { column: tab.first_order(), descending: true });
        table.rows.truncate(report.rows);
        (tab, table)
    });
    let totals = view.totals();
    if report.json {
        let mut all = Map::new();
        all.insert("seconds".to_owned(), json!(totals.seconds));
        all.insert("flow_records".to_owned(), json!(totals.flows));
        all.insert("packets".to_owned(), json!(totals.packets));
        all.insert("octets".to_owned(), json!(totals.octets));
        for (tab, table) in &tables {
            let object = |row: &Vec<Cell>| -> Value {
                let name = |column: &&str| column.replace(' ', "_");
                table.columns.iter().map(name).zip(row.iter().map(Cell::json)).collect::<Map<_, _>>().into()
            };
            all.insert(tab.word().to_owned(), table.rows.iter().map(object).collect());
        }
        return writeln!(out, "{}", Value::Object(all));
    }
    writeln!(out, "{}", draw::summary(view))?;
    for (tab, table) in &tables {
        writeln!(out, "\n{}", tab.word())?;
        let widths: Vec<usize> = (0..table.columns.len())
            .map(|column| {
                let cells =
                    table.rows.iter().filter_map(|row| row.get(column)).map(|it| it.shown().chars().count());
                cells.chain([table.columns[column].len()]).max().unwrap_or_default()
            })
            .collect();
        let line = |cells: Vec<String>| {
            let padded: Vec<String> =
                cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            padded.join("  ").trim_end().to_owned()
        };
        writeln!(out, "  {}", line(table.columns.iter().map(|&column| column.to_owned()).collect()))?;
        for row in &table.rows {
            writeln!(out, "  {}", line(row.iter().map(Cell::shown).collect()))?;
        }
    }
    Ok(())
}
