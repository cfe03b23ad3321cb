//! The lines that tell of the instance as a whole.

use demux_common::connection::State;
use ratatui::{
    style::{Color, Modifier, Style},
    text::{Line, Span},
};

use super::amount::{amount, rate};
use crate::{
    render::{milliseconds, printable},
    top::Facts,
};

/// How many columns the bar has.
const BAR: usize = 20;

/// The lines for a sample, from the most to the least important.
pub(super) fn lines(facts: &Facts, is_coloured: bool) -> Vec<Line<'static>> {
    let mut lines = vec![connections(facts, is_coloured)];
    if facts.untracked > 0 || facts.displaced > 0 {
        lines.push(pressure(facts, is_coloured));
    }
    lines.push(verdicts(facts, is_coloured));
    lines.push(states(facts));
    lines
}

/// The namespace, and the interfaces with their modes and defaults.
pub(super) fn title(facts: &Facts) -> String {
    let mut title = format!("demux  {}", printable(&facts.netns));
    for interface in &facts.interfaces {
        title = format!(
            "{title}  {} {} {}",
            printable(&interface.name),
            interface.mode,
            interface.default
        );
    }
    title
}

/// From one sample to the next.
pub(super) fn interval(interval: std::time::Duration) -> String {
    let duration = interval.as_millis() as u64;
    if duration.is_multiple_of(1000) {
        milliseconds(duration)
    } else {
        format!("{:.2}s", interval.as_secs_f64())
    }
}

/// How full something is: filled places of so many.
pub(super) fn filled(part: u64, whole: u64, places: usize) -> usize {
    if part == 0 || whole == 0 {
        return 0;
    }
    let exact = part as f64 / whole as f64 * places as f64;
    // Something is not nothing, and not yet everything is not everything.
    if part < whole {
        (exact.round() as usize).clamp(1, places - 1)
    } else {
        places
    }
}

fn connections(facts: &Facts, is_coloured: bool) -> Line<'static> {
    let (part, whole) = (facts.connections, u64::from(facts.max_connections));
    let bar = filled(part, whole, BAR);
    let percent = (100 * part).checked_div(whole).unwrap_or_default();
    let colour = match percent {
        _ if !is_coloured => Color::Reset,
        0..75 => Color::Green,
        75..95 => Color::Yellow,
        _ => Color::Red,
    };
    Line::from(vec![
        bold("connections"),
        Span::raw(" ["),
        Span::styled("|".repeat(bar), Style::new().fg(colour)),
        Span::raw(format!(
            "{}] {part} of {whole} ({percent}%)  {} confirmed",
            " ".repeat(BAR - bar),
            facts.confirmed
        )),
    ])
}

/// What the table had no room for.
fn pressure(facts: &Facts, is_coloured: bool) -> Line<'static> {
    let is_felt = facts.untracked_rate.is_some_and(|rate| rate > 0.0);
    let style = if is_felt && is_coloured {
        Style::new().fg(Color::Red)
    } else {
        Style::new()
    };
    Line::from(vec![
        bold("pressure"),
        Span::styled(
            format!(
                "  {} packets untracked ({}/s)",
                amount(facts.untracked as f64),
                rate(facts.untracked_rate, amount)
            ),
            style,
        ),
        Span::raw(format!(
            "  {} rows displaced ({}/s)",
            amount(facts.displaced as f64),
            rate(facts.displaced_rate, amount)
        )),
    ])
}

fn verdicts(facts: &Facts, is_coloured: bool) -> Line<'static> {
    let mut spans = vec![bold("packets/s")];
    for fact in &facts.verdicts {
        let is_news = fact.rate.is_some_and(|rate| rate > 0.0);
        let style = match fact.verdict.name() {
            "drop" | "reject" if is_news && is_coloured => Style::new().fg(Color::Red),
            _ => Style::new(),
        };
        spans.push(Span::raw(format!("  {} ", fact.verdict.name())));
        spans.push(Span::styled(rate(fact.rate, amount), style));
    }
    Line::from(spans)
}

fn states(facts: &Facts) -> Line<'static> {
    let mut spans = vec![bold("states")];
    let mut states: Vec<_> = State::ALL
        .iter()
        .map(|&state| (facts.states[state as usize], state))
        .filter(|(count, _)| *count > 0)
        .collect();
    states.sort_by_key(|&(count, state)| (std::cmp::Reverse(count), state as u8));
    for (count, state) in &states {
        spans.push(Span::raw(format!(
            "  {} {}",
            state.name(),
            amount(*count as f64)
        )));
    }
    if states.is_empty() {
        spans.push(Span::raw("  none"));
    }
    Line::from(spans)
}

fn bold(text: &'static str) -> Span<'static> {
    Span::styled(text, Style::new().add_modifier(Modifier::BOLD))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_bar_is_empty_or_full_only_where_it_is() {
        assert_eq!(filled(0, 100, 20), 0);
        assert_eq!(filled(1, 100_000, 20), 1);
        assert_eq!(filled(50, 100, 20), 10);
        assert_eq!(filled(99_999, 100_000, 20), 19);
        assert_eq!(filled(100, 100, 20), 20);
        // Rows may be more than the table is said to be for.
        assert_eq!(filled(101, 100, 20), 20);
        assert_eq!(filled(5, 0, 20), 0);
    }

    #[test]
    fn intervals_are_short_to_read() {
        assert_eq!(interval(Duration::from_secs(1)), "1s");
        assert_eq!(interval(Duration::from_millis(500)), "0.50s");
        assert_eq!(interval(Duration::from_secs(60)), "1m00s");
    }
}
