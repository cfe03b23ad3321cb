//! The filter language of `connections`, which is that of ss where ss has words for it.
//!
//! ```text
//! filter    = { states } expression
//! states    = ( "state" | "exclude" ) STATE              several of them unite, as in ss
//! expression = term { ( "or" | "|" | "||" ) term }
//! term      = factor { [ "and" | "&" | "&&" ] factor }
//! factor    = ( "not" | "!" ) factor | "(" expression ")" | condition
//! condition = "state" [op] STATE { "," STATE }
//!           | ( "local" | "src" | "remote" | "dst" ) [op] ADDRESS [ ":" PORTS ]
//!           | ( "lport" | "sport" | "rport" | "dport" ) [op] [ ":" ] PORTS
//!           | "proto" [op] PROTOCOL | "binding" [op] NAME | "dir" [op] ( "in" | "out" )
//! op        = "=" "==" "eq" "!=" "ne" "neq" "<" "lt" ">" "gt" "<=" "le" "leq" ">=" "ge" "geq"
//! ```

mod endpoint;
mod parse;
mod selection;
mod states;
mod token;

use std::net::SocketAddr;

use demux_common::{
    connection::{Direction, State},
    protocol::Protocol,
};

use self::endpoint::Endpoint;
pub use self::states::States;
use crate::{Result, bindings::Ports, connections::Row};

/// Which connections are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter(Expression);

impl Filter {
    /// Reads a filter from the words of a command line, each of which may hold several.
    /// No words at all are for every connection.
    ///
    /// # Errors
    ///
    /// [`crate::Error::InvalidArgument`] that says which word is wrong.
    pub fn parse(words: &[impl AsRef<str>]) -> Result<Self> {
        parse::parse(words).map(Self)
    }

    /// Whether the filter has no words, and wants every connection for that reason.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == Expression::Everything
    }

    /// Whether the filter wants this connection.
    #[must_use]
    pub fn matches(&self, row: &Row) -> bool {
        self.0.matches(&Subject {
            protocol: row.protocol,
            local: row.local,
            remote: row.remote,
            binding: row.binding.as_deref(),
            connection: Some((row.state, row.direction)),
        })
    }

    /// Whether the filter wants a packet of such a conversation, of whose connection nothing is known.
    #[must_use]
    pub fn matches_packet(
        &self,
        protocol: Protocol,
        local: SocketAddr,
        remote: SocketAddr,
        binding: Option<&str>,
    ) -> bool {
        self.0.matches(&Subject {
            protocol,
            local,
            remote,
            binding,
            connection: None,
        })
    }
}

/// What a filter looks at.
struct Subject<'a> {
    protocol: Protocol,
    local: SocketAddr,
    remote: SocketAddr,
    binding: Option<&'a str>,
    /// The state, and who opened it.
    connection: Option<(State, Direction)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Expression {
    Everything,
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Not(Box<Self>),
    Is(Condition),
}

impl Expression {
    fn matches(&self, row: &Subject<'_>) -> bool {
        match self {
            Self::Everything => true,
            Self::And(left, right) => left.matches(row) && right.matches(row),
            Self::Or(left, right) => left.matches(row) || right.matches(row),
            Self::Not(inner) => !inner.matches(row),
            Self::Is(condition) => condition.matches(row),
        }
    }

    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Everything, one) | (one, Self::Everything) => one,
            (left, right) => Self::And(left.into(), right.into()),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    State(States),
    Endpoint(Side, Endpoint),
    Port(Side, Operator, Ports),
    Protocol(Protocol),
    Binding(String),
    Direction(Direction),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Local,
    Remote,
}

/// How a port is compared; the opposite of equality is a negation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operator {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

impl Condition {
    fn matches(&self, row: &Subject<'_>) -> bool {
        let endpoint = |side| match side {
            Side::Local => row.local,
            Side::Remote => row.remote,
        };
        match self {
            Self::State(states) => {
                matches!(row.connection, Some((state, _)) if states.contains(state))
            }
            Self::Endpoint(side, wanted) => wanted.matches(endpoint(*side)),
            Self::Port(side, operator, ports) => {
                let port = endpoint(*side).port();
                match operator {
                    Operator::Equal => (ports.first..=ports.last).contains(&port),
                    Operator::Less => port < ports.first,
                    Operator::LessOrEqual => port <= ports.first,
                    Operator::Greater => port > ports.first,
                    Operator::GreaterOrEqual => port >= ports.first,
                }
            }
            Self::Protocol(protocol) => row.protocol == *protocol,
            Self::Binding(name) => row.binding == Some(name.as_str()),
            Self::Direction(direction) => {
                matches!(row.connection, Some((_, opener)) if opener == *direction)
            }
        }
    }
}

#[cfg(test)]
mod tests;
