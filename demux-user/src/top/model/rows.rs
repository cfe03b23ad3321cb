//! The rows of the present view: their order, and which of them is selected.

use std::net::SocketAddr;

use demux_common::{protocol::Protocol, reason::Verdict};

use super::{
    super::{
        column::{Ranked, Sort, View},
        snapshot::ConnectionLine,
    },
    Model, Shown,
};

/// What stays the same of a row from one sample to the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Identity {
    Connection(Protocol, SocketAddr, SocketAddr),
    Binding(String),
    Counter(Option<String>, Option<&'static str>, &'static str),
}

impl Model {
    /// Selects the row at a place, or the last one.
    pub(super) fn go(&mut self, place: usize) {
        let place = place.min(self.order.len().saturating_sub(1));
        self.selected = self.identity(place);
        self.follow();
    }

    fn identity(&self, place: usize) -> Option<Identity> {
        let snapshot = self.snapshot.as_ref()?;
        let index = *self.order.get(place)?;
        match self.view {
            View::Connections => snapshot.connections.get(index).map(connection),
            View::Bindings => {
                let binding = snapshot.bindings.get(index)?;
                Some(Identity::Binding(binding.name.clone()))
            }
            View::Counters => {
                let counter = snapshot.counters.get(index)?;
                Some(Identity::Counter(
                    counter.iface.clone(),
                    counter.verdict.map(Verdict::name),
                    counter.reason,
                ))
            }
        }
    }

    /// Orders the rows of the view anew.
    pub(super) fn arrange(&mut self) {
        let sort = self.sort();
        self.order.clear();
        if let Some(snapshot) = &self.snapshot {
            match self.view {
                View::Connections => {
                    // They may be those of an earlier filter.
                    let wanted = snapshot.connections.iter().enumerate();
                    let wanted = wanted.filter(|(_, line)| self.filter.matches(&line.row));
                    self.order.extend(wanted.map(|(place, _)| place));
                    order(&mut self.order, &snapshot.connections, sort);
                }
                View::Bindings => {
                    self.order.extend(0..snapshot.bindings.len());
                    order(&mut self.order, &snapshot.bindings, sort);
                }
                View::Counters => {
                    self.order.extend(0..snapshot.counters.len());
                    order(&mut self.order, &snapshot.counters, sort);
                }
            }
        }
        self.follow();
    }

    /// Finds the selected row again, and brings it onto the screen.
    pub(super) fn follow(&mut self) {
        let rows = self.order.len();
        let found = self
            .selected
            .as_ref()
            .map(|wanted| (0..rows).find(|&place| self.identity(place).as_ref() == Some(wanted)));
        let selected = match found {
            None => 0,
            Some(Some(place)) => place,
            // It is gone: whatever took its place is as good.
            Some(None) => self.shown.selected.min(rows.saturating_sub(1)),
        };
        if found == Some(None) {
            self.selected = self.identity(selected);
        }
        let first = self
            .shown
            .first
            .min(selected)
            .max((selected + 1).saturating_sub(self.page))
            .min(rows.saturating_sub(self.page));
        self.shown = Shown {
            rows,
            first,
            selected,
        };
    }
}

/// What a connection is known by.
pub(super) fn connection(line: &ConnectionLine) -> Identity {
    let row = &line.row;
    Identity::Connection(row.protocol, row.local, row.remote)
}

fn order<R: Ranked>(places: &mut [usize], rows: &[R], sort: Sort) {
    places.sort_by_cached_key(|&place| sort.place(rows[place].rank(sort.column)));
}
