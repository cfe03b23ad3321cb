//! Events, one a row.

use demux_common::connection::State;
use jiff::Timestamp;
use serde::Serialize;

use super::{
    bytes,
    connections::ConnectionRow,
    list::{Column, Row, left, right},
    milliseconds,
};
use crate::listen::{EventRow, Kind};

/// An event, with the fields of its JSON object: those of the connection besides its own.
#[derive(Clone, Debug, Serialize)]
pub struct EventView {
    /// The time of day (RFC 3339).
    time: String,
    /// What happened; `lost` for events that found the ring full.
    event: &'static str,
    /// The state before, where it changed.
    previous_state: Option<&'static str>,
    /// How many events were lost since the last row that says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    #[serde(flatten)]
    connection: Option<ConnectionRow>,
}

impl From<EventRow> for EventView {
    fn from(event: EventRow) -> Self {
        Self {
            time: rfc3339(event.time),
            event: event.kind.name(),
            previous_state: event.previous.map(State::name),
            lost: None,
            connection: Some(event.connection.into()),
        }
    }
}

impl EventView {
    /// That so many events were lost.
    #[must_use]
    pub fn of_lost(lost: u64) -> Self {
        Self {
            time: rfc3339(Timestamp::now()),
            event: "lost",
            previous_state: None,
            lost: Some(lost),
            connection: None,
        }
    }
}

impl Row for EventView {
    const NOUN: &'static str = "events";
    const WIDTHS: &'static [u16] = &[15, 11, 5, 24, 3, 21, 21];
    const COLUMNS: &'static [Column] = &[
        left("TIME"),
        left("EVENT"),
        left("PROTO"),
        left("STATE"),
        left("DIR"),
        left("LOCAL"),
        left("REMOTE"),
        left("BINDING"),
        right("RX-PKTS"),
        right("RX-BYTES"),
        right("TX-PKTS"),
        right("TX-BYTES"),
        right("AGE"),
    ];

    fn cells(&self) -> Vec<String> {
        let Some(connection) = &self.connection else {
            let mut cells = vec![String::new(); Self::COLUMNS.len()];
            cells[0] = clock_of(&self.time);
            cells[1] = self.event.into();
            cells[2] = format!("{} events", self.lost.unwrap_or_default());
            return cells;
        };
        let is_untracked = self.event == Kind::Untracked.name();
        let known = |text: String| if is_untracked { "-".into() } else { text };
        vec![
            clock_of(&self.time),
            self.event.into(),
            connection.protocol.into(),
            known(match self.previous_state {
                Some(before) => format!("{before}>{}", connection.state),
                None => connection.state.into(),
            }),
            known(connection.direction.into()),
            connection.local.clone(),
            connection.remote.clone(),
            connection.binding.clone().unwrap_or_else(|| "-".into()),
            known(connection.rx_packets.to_string()),
            known(bytes(connection.rx_bytes)),
            known(connection.tx_packets.to_string()),
            known(bytes(connection.tx_bytes)),
            known(milliseconds(connection.age_ms)),
        ]
    }
}

/// The time of day (RFC 3339), to the microsecond.
pub(super) fn rfc3339(time: Timestamp) -> String {
    format!("{time:.6}")
}

/// The time of day without the date.
pub(super) fn clock_of(time: &str) -> String {
    let time = time.split_once('T').map_or(time, |(_, time)| time);
    time.trim_end_matches('Z').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lost_events_are_a_row_of_their_own() {
        let lost = EventView::of_lost(7);
        assert_eq!(lost.cells().len(), EventView::COLUMNS.len());
        let json = serde_json::to_value(&lost).unwrap();
        assert_eq!((&json["event"], &json["lost"]), (&"lost".into(), &7.into()));
    }

    #[test]
    fn the_clock_is_the_time_without_its_date() {
        assert_eq!(clock_of("2026-01-02T03:04:05.678Z"), "03:04:05.678");
    }
}
