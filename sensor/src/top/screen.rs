//! What a person has chosen to see, and what their keys do.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::table::{Order, Table};
use super::view::{Tab, View};

/// Characters of a filter.
const MAX_FILTER: usize = 128;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Stay,
    Quit,
}

/// The choices.
#[derive(Clone, Debug)]
pub struct Screen {
    pub tab: Tab,
    orders: [Order; Tab::ALL.len()],
    pub filter: String,
    /// Keys go to the filter.
    pub typing: bool,
    /// What stood there when it was paused; what comes meanwhile is taken in, and not shown.
    held: Option<Table>,
    pause: bool,
    /// The first row that is shown.
    pub top: usize,
}

impl Default for Screen {
    fn default() -> Self {
        let orders = Tab::ALL.map(|tab| Order { column: tab.first_order(), descending: true });
        Self {
            tab: Tab::Flows,
            orders,
            filter: String::new(),
            typing: false,
            held: None,
            pause: false,
            top: 0,
        }
    }
}

impl Screen {
    /// The order of the tab that is shown.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.orders[self.place()]
    }

    #[must_use]
    pub fn is_paused(&self) -> bool {
        self.pause
    }

    fn place(&self) -> usize {
        Tab::ALL.iter().position(|tab| *tab == self.tab).unwrap_or_default()
    }

    /// The rows to show, sorted and filtered.
    pub fn table(&mut self, view: &View) -> Table {
        let mut table = match &self.held {
            Some(held) if self.pause => held.clone(),
            _ => view.table(self.tab),
        };
        if self.pause && self.held.is_none() {
            self.held = Some(table.clone());
        }
        table.sort(self.order());
        table.filter(&self.filter);
        self.top = self.top.min(table.rows.len().saturating_sub(1));
        table
    }

    /// Does what a key says.
    pub fn key(&mut self, key: KeyEvent) -> Answer {
        if key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c') {
            return Answer::Quit;
        }
        if self.typing {
            match key.code {
                KeyCode::Enter => self.typing = false,
                KeyCode::Esc => (self.typing, self.filter) = (false, String::new()),
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(character) if self.filter.chars().count() < MAX_FILTER => {
                    self.filter.push(character);
                }
                _ => {}
            }
            return Answer::Stay;
        }
        let place = self.place();
        let tabs = Tab::ALL.len();
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Answer::Quit,
            KeyCode::Tab | KeyCode::Right => self.turn((place + 1) % tabs),
            KeyCode::BackTab | KeyCode::Left => self.turn((place + tabs - 1) % tabs),
            KeyCode::Char(digit @ '1'..='5') => self.turn(digit as usize - '1' as usize),
            KeyCode::Char('s') => {
                self.orders[place].column = (self.orders[place].column + 1) % self.columns();
            }
            KeyCode::Char('S') => {
                let columns = self.columns();
                self.orders[place].column = (self.orders[place].column + columns - 1) % columns;
            }
            KeyCode::Char('r') => self.orders[place].descending = !self.orders[place].descending,
            KeyCode::Char('/') => self.typing = true,
            KeyCode::Char('p' | ' ') => (self.pause, self.held) = (!self.pause, None),
            KeyCode::Down | KeyCode::Char('j') => self.top = self.top.saturating_add(1),
            KeyCode::Up | KeyCode::Char('k') => self.top = self.top.saturating_sub(1),
            KeyCode::PageDown => self.top = self.top.saturating_add(20),
            KeyCode::PageUp => self.top = self.top.saturating_sub(20),
            KeyCode::Home => self.top = 0,
            _ => {}
        }
        Answer::Stay
    }

    fn turn(&mut self, place: usize) {
        (self.tab, self.held, self.top) = (Tab::ALL[place], None, 0);
    }

    fn columns(&self) -> usize {
        self.tab.columns().len()
    }
}
