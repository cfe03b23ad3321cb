//! Drawing the live view on a screen of any size.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Position, Rect},
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::{
    columns::{cell, look},
    details::{HELP, details},
    header,
    layout::{GAP, Placed, fit, lay_out},
};
use crate::{
    render::printable,
    top::{Column, Model, Overlay, Sort, View},
};

/// Draws what is shown. Tells the model how many rows there is room for.
pub fn draw_top(frame: &mut Frame<'_>, model: &mut Model, is_coloured: bool) {
    let area = frame.area();
    if area.width == 0 || area.height == 0 {
        return;
    }
    let lines = model.snapshot().map_or_else(Vec::new, |snapshot| {
        header::lines(&snapshot.facts, is_coloured)
    });
    let screen = Screen::divide(area, lines.len() as u16);
    if let Some(overlay) = model.overlay().cloned() {
        draw_overlay(frame.buffer_mut(), &screen, model, &overlay);
    } else {
        model.set_page(screen.rows.height.into());
        draw_rows(frame.buffer_mut(), &screen, model, is_coloured);
    }
    draw_head(frame.buffer_mut(), &screen, model);
    for (line, row) in lines.iter().zip(screen.facts.rows()) {
        frame.buffer_mut().set_line(row.x, row.y, line, row.width);
    }
    if let Some(cursor) = draw_foot(frame.buffer_mut(), &screen, model, is_coloured) {
        frame.set_cursor_position(cursor);
    }
}

/// Where everything is.
#[derive(Clone, Copy, Debug)]
struct Screen {
    title: Rect,
    facts: Rect,
    tabs: Rect,
    rows_header: Rect,
    rows: Rect,
    foot: Rect,
}

impl Screen {
    /// Gives the last line to the keys, and as many of the first ones to the instance as leave most of
    /// the screen to the rows.
    fn divide(area: Rect, facts: u16) -> Self {
        let title = u16::from(area.height >= 4);
        let facts = match area.height {
            0..8 => 0_u16,
            8..12 => 1,
            12..16 => 2,
            16..20 => 3,
            _ => 4,
        }
        .min(facts);
        let tabs = u16::from(area.height >= 5);
        let header = u16::from(area.height >= 3);
        let foot = u16::from(area.height >= 2);
        let mut top = area.y;
        let mut take = |height: u16| {
            let taken = Rect::new(area.x, top, area.width, height);
            top += height;
            taken
        };
        Self {
            title: take(title),
            facts: take(facts),
            tabs: take(tabs),
            rows_header: take(header),
            rows: take(area.height - title - facts - tabs - header - foot),
            foot: take(foot),
        }
    }
}

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const REVERSED: Style = Style::new().add_modifier(Modifier::REVERSED);

fn draw_head(buffer: &mut Buffer, screen: &Screen, model: &Model) {
    let pause = if model.is_paused() { "PAUSED" } else { "" };
    let state = format!("{pause} {}", header::interval(model.interval()));
    let state = state.trim_start();
    if screen.title.height > 0 {
        let room = screen.title.width.saturating_sub(state.len() as u16 + 1);
        let title = match model.snapshot() {
            Some(snapshot) => header::title(&snapshot.facts),
            None => "demux".into(),
        };
        put(buffer, screen.title, 0, &fit(&title, room, false), BOLD);
        let style = if model.is_paused() { REVERSED } else { BOLD };
        put(buffer, screen.title, room + 1, state, style);
    }
    if screen.tabs.height > 0 {
        buffer.set_line(
            screen.tabs.x,
            screen.tabs.y,
            &tabs(model, screen.tabs.width),
            screen.tabs.width,
        );
    }
}

/// The views, the present one marked, and how many rows it has.
fn tabs(model: &Model, width: u16) -> Line<'static> {
    let mut spans = Vec::new();
    for (number, view) in (1..).zip(View::ALL) {
        let style = if view == model.view() {
            REVERSED
        } else {
            Style::new()
        };
        // On narrow screens the numbers have to do.
        let name = if width >= 60 || view == model.view() {
            format!(" {number} {} ", view.name())
        } else {
            format!(" {number} ")
        };
        spans.push(Span::styled(name, style));
    }
    if let Some(snapshot) = model.snapshot() {
        let shown = model.shown();
        let all = match model.view() {
            View::Connections => snapshot.matching.max(shown.rows as u64),
            View::Bindings | View::Counters => shown.rows as u64,
        };
        let place = if shown.rows == 0 {
            0
        } else {
            shown.selected + 1
        };
        let count = if all > shown.rows as u64 {
            format!("  {place} of the first {} of {all}", shown.rows)
        } else {
            format!("  {place} of {all}")
        };
        spans.push(Span::raw(count));
    }
    if !model.filter().is_empty() && model.view() == View::Connections {
        spans.push(Span::styled(
            format!("  filter: {}", printable(model.filter())),
            BOLD,
        ));
    }
    Line::from(spans)
}

fn draw_rows(buffer: &mut Buffer, screen: &Screen, model: &Model, is_coloured: bool) {
    let (view, sort, shown) = (model.view(), model.sort(), model.shown());
    let Some(snapshot) = model.snapshot() else {
        let text = model.notice().unwrap_or("reading the tables");
        let mut rows = screen.rows.rows();
        for line in wrap(text, screen.rows.width) {
            if let Some(row) = rows.next() {
                put(buffer, row, 0, &line, Style::new());
            }
        }
        return;
    };
    let visible: Vec<usize> = model
        .order()
        .iter()
        .skip(shown.first)
        .take(screen.rows.height.into())
        .copied()
        .collect();
    let placed = lay_out(view, sort.column, screen.rows.width, |column| {
        let longest = visible
            .iter()
            .map(|&place| cell(snapshot, view, place, column).chars().count())
            .max();
        longest.unwrap_or_default().min(usize::from(u16::MAX)) as u16
    });
    if screen.rows_header.height > 0 {
        buffer.set_style(screen.rows_header, REVERSED);
        each(&placed, |x, placed| {
            let title = title(view, placed.column, sort);
            let text = fit(&title, placed.width, look(view, placed.column).is_right);
            let style = if placed.column == sort.column {
                REVERSED.add_modifier(Modifier::BOLD)
            } else {
                REVERSED
            };
            put(buffer, screen.rows_header, x, &text, style);
        });
    }
    for (row, (place, line)) in screen
        .rows
        .rows()
        .zip((shown.first..).zip(visible.iter().copied()))
    {
        each(&placed, |x, placed| {
            let text = cell(snapshot, view, line, placed.column);
            let is_right = look(view, placed.column).is_right;
            let style = if is_coloured {
                colour(placed.column, &text)
            } else {
                Style::new()
            };
            put(buffer, row, x, &fit(&text, placed.width, is_right), style);
        });
        if place == shown.selected {
            buffer.set_style(row, REVERSED);
        }
    }
    if visible.is_empty() && screen.rows.height > 0 {
        let nothing = match view {
            View::Connections if !model.filter().is_empty() => "no connection matches the filter",
            View::Connections => "no connections",
            View::Bindings => "no bindings",
            View::Counters => "nothing was counted yet",
        };
        put(buffer, screen.rows, 0, nothing, Style::new());
    }
}

/// The title of a column, with an arrow where rows are ordered by it.
fn title(view: View, column: Column, sort: Sort) -> String {
    let title = look(view, column).title;
    if column != sort.column {
        title.into()
    } else if sort.is_descending() {
        format!("{title}▼")
    } else {
        format!("{title}▲")
    }
}

fn colour(column: Column, text: &str) -> Style {
    let colour = match (column, text) {
        (Column::State, "ESTABLISHED" | "ASSURED" | "REPLIED") => Color::Green,
        (Column::State, "SYN-SENT" | "SYN-RECEIVED" | "LISTEN" | "UNREPLIED" | "RESERVED") => {
            Color::Yellow
        }
        (Column::State, _) => Color::Blue,
        (Column::Verdict, "drop" | "reject") => Color::Red,
        (Column::Verdict, "pass") => Color::Green,
        (Column::Binding, _) => Color::Cyan,
        _ => Color::Reset,
    };
    Style::new().fg(colour)
}

fn draw_overlay(buffer: &mut Buffer, screen: &Screen, model: &mut Model, overlay: &Overlay) {
    let width = screen.rows.width;
    let (title, lines) = match overlay {
        Overlay::Help => ("keys", HELP.iter().map(|line| (*line).to_owned()).collect()),
        Overlay::Details(line, is_present) => {
            let lines: Vec<String> = details(line, *is_present)
                .into_iter()
                .flat_map(|(key, value)| {
                    let room = width.saturating_sub(11);
                    let keys = std::iter::once(key).chain(std::iter::repeat(""));
                    let values = wrap(&value, room);
                    keys.zip(values)
                        .map(|(key, value)| format!("{key:<11}{value}"))
                        .collect::<Vec<_>>()
                })
                .collect();
            ("connection", lines)
        }
    };
    model.limit_scroll(lines.len(), screen.rows.height.into());
    if screen.rows_header.height > 0 {
        buffer.set_style(screen.rows_header, REVERSED);
        let hidden = lines.len().saturating_sub(screen.rows.height.into());
        let more = if hidden > model.scroll() {
            format!("{title}  (more: Down)")
        } else {
            title.to_owned()
        };
        put(buffer, screen.rows_header, 0, &more, REVERSED);
    }
    let lines = lines.iter().skip(model.scroll());
    for (line, row) in lines.zip(screen.rows.rows()) {
        put(buffer, row, 0, line, Style::new());
    }
}

/// The last line: the filter that is being edited, or the keys. Returns where the cursor is.
fn draw_foot(
    buffer: &mut Buffer,
    screen: &Screen,
    model: &Model,
    is_coloured: bool,
) -> Option<Position> {
    let foot = screen.foot;
    if foot.height == 0 {
        return None;
    }
    let Some(editor) = model.editor() else {
        let keys = match model.overlay() {
            Some(_) => "q leave  arrows scroll  p pause",
            None => {
                "q quit  Tab view  s sort  r reverse  / filter  p pause  +- interval  Enter more  ? help"
            }
        };
        put(buffer, foot, 0, keys, Style::new());
        return None;
    };
    let prompt = "filter: ";
    let before = editor.before().chars().count();
    let room = usize::from(foot.width).saturating_sub(prompt.len() + 1);
    // What is left of the cursor goes out of sight first.
    let skipped = before.saturating_sub(room);
    let text: String = editor.text().chars().skip(skipped).collect();
    let x = (prompt.len() + before - skipped).min(usize::from(foot.width) - 1) as u16;
    put(buffer, foot, 0, prompt, BOLD);
    put(buffer, foot, prompt.len() as u16, &text, Style::new());
    if let Some(error) = &editor.error {
        // In the place of the last rows: the filter stays to be mended.
        let lines = wrap(&printable(error), foot.width);
        let height = (lines.len() as u16).min(foot.y);
        let style = if is_coloured {
            Style::new().fg(Color::Red)
        } else {
            BOLD
        };
        let lines = lines.iter().rev().take(height.into());
        for (line, y) in lines.zip((0..foot.y).rev()) {
            let row = Rect::new(foot.x, y, foot.width, 1);
            buffer.set_style(row, Style::reset());
            put(buffer, row, 0, &fit(line, foot.width, false), style);
        }
    }
    Some(Position::new(foot.x + x, foot.y))
}

/// Calls `draw` with each column and where it begins.
fn each(placed: &[Placed], mut draw: impl FnMut(u16, &Placed)) {
    let mut x = 0;
    for column in placed {
        draw(x, column);
        x += column.width + GAP;
    }
}

fn put(buffer: &mut Buffer, area: Rect, x: u16, text: &str, style: Style) {
    if area.height > 0 && x < area.width {
        let width = usize::from(area.width - x);
        buffer.set_stringn(area.x + x, area.y, text, width, style);
    }
}

/// Breaks a text at blanks, where there are any, into lines of so many columns.
fn wrap(text: &str, width: u16) -> Vec<String> {
    let width = usize::from(width.max(1));
    let mut lines = vec![String::new()];
    let mut length = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + word.len() > width {
            lines.push(String::new());
            length = 0;
        } else if length > 0 {
            lines.last_mut().expect("never empty").push(' ');
            length += 1;
        }
        while length + word.len() > width {
            let rest = word.split_off(width - length);
            lines.last_mut().expect("never empty").extend(word);
            lines.push(String::new());
            length = 0;
            word = rest;
        }
        length += word.len();
        lines.last_mut().expect("never empty").extend(word);
    }
    lines
}

#[cfg(test)]
mod tests;
