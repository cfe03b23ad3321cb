//! What became of connections that were to be ended.

use serde::Serialize;

use super::{
    ErrorView,
    list::{Column, Row, left},
};
use crate::kill::{Action, Killed};

/// A connection that was to be ended.
#[derive(Clone, Debug, Serialize, schemars::JsonSchema)]
pub struct KilledRow {
    protocol: &'static str,
    local: String,
    remote: String,
    /// The state it was in.
    state: &'static str,
    /// What was done, or would be; nothing where it failed.
    action: Option<&'static str>,
    /// Why no more than the row was removed.
    reason: Option<&'static str>,
    /// Whether nothing was done, because only that was asked which would be.
    dry_run: bool,
    /// Why it failed.
    error: Option<ErrorView>,
}

impl KilledRow {
    /// The row of a connection; `dry_run` where nothing was done.
    #[must_use]
    pub fn new(killed: &Killed, dry_run: bool) -> Self {
        let action = killed.outcome.as_ref().ok();
        Self {
            protocol: killed.protocol.name(),
            local: killed.local.to_string(),
            remote: killed.remote.to_string(),
            state: killed.state.name(),
            action: action.map(|action| action.name()),
            reason: match action {
                Some(Action::Forgotten(reason)) => Some(reason.text()),
                _ => None,
            },
            dry_run,
            error: killed.outcome.as_ref().err().map(ErrorView::from),
        }
    }
}

impl Row for KilledRow {
    const NOUN: &'static str = "kill";
    const COLUMNS: &'static [Column] = &[
        left("PROTO"),
        left("STATE"),
        left("LOCAL"),
        left("REMOTE"),
        left("ACTION"),
        left("REASON"),
    ];

    fn cells(&self) -> Vec<String> {
        let reason = match &self.error {
            Some(error) => Some(error.message.as_str()),
            None => self.reason,
        };
        vec![
            self.protocol.into(),
            self.state.into(),
            self.local.clone(),
            self.remote.clone(),
            self.action.unwrap_or("failed").into(),
            reason.unwrap_or("-").into(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use demux_common::{connection::State, protocol::Protocol};

    use super::*;
    use crate::{Error, Result, kill::Reason};

    fn row(outcome: Result<Action>) -> KilledRow {
        let killed = Killed {
            protocol: Protocol::Tcp,
            local: "10.0.0.2:80".parse().unwrap(),
            remote: "10.0.0.1:4000".parse().unwrap(),
            state: State::Established,
            outcome,
        };
        KilledRow::new(&killed, false)
    }

    #[test]
    fn the_json_object_says_what_was_done() {
        assert_eq!(
            serde_json::to_value(row(Ok(Action::Destroyed))).unwrap(),
            serde_json::json!({
                "protocol": "tcp", "local": "10.0.0.2:80", "remote": "10.0.0.1:4000",
                "state": "ESTABLISHED", "action": "destroyed", "reason": null,
                "dry_run": false, "error": null,
            })
        );
        let failed = serde_json::to_value(row(Err(Error::NotLoaded))).unwrap();
        assert_eq!(failed["action"], serde_json::Value::Null);
        assert_eq!(failed["error"]["code"], "not_loaded");
    }

    #[test]
    fn every_column_has_its_cell() {
        for (outcome, last) in [
            (Ok(Action::Reset), ["reset", "-"]),
            (
                Ok(Action::Forgotten(Reason::Asked)),
                ["forgotten", "asked for"],
            ),
            (
                Err(Error::ConnectionNotFound),
                ["failed", "no connection matches the filter"],
            ),
        ] {
            let cells = row(outcome).cells();
            assert_eq!(cells.len(), KilledRow::COLUMNS.len());
            assert_eq!(cells[4..], last);
        }
    }
}
