//! From words to an expression.

use std::str::FromStr as _;

use demux_common::{connection::Direction, protocol::Protocol};

use super::{
    Condition, Expression, Operator, Side, endpoint::Endpoint, states::States, token::split,
};
use crate::{Error, Result, bindings::Ports};

/// How deep parentheses and negations may nest; beyond it, a filter is no longer meant.
const MAX_DEPTH: u32 = 64;

pub(super) fn parse(words: &[impl AsRef<str>]) -> Result<Expression> {
    let mut parser = Parser {
        tokens: split(words.iter().map(AsRef::as_ref)),
        position: 0,
        depth: 0,
    };
    if parser.tokens.is_empty() {
        return Ok(Expression::Everything);
    }
    let states = parser.states()?;
    if parser.peek().is_none() {
        return Ok(states);
    }
    // The word that joins the states to the rest may be left out.
    if states != Expression::Everything {
        parser.take_any(&AND);
    }
    let rest = parser.expression()?;
    match parser.peek() {
        None => Ok(states.and(rest)),
        Some(")") => Err(parser.invalid("a ( is missing")),
        Some(_) => Err(parser.invalid("a condition was expected here")),
    }
}

const AND: [&str; 3] = ["and", "&", "&&"];
const OR: [&str; 3] = ["or", "|", "||"];
const NOT: [&str; 2] = ["not", "!"];

struct Parser<'a> {
    tokens: Vec<&'a str>,
    position: usize,
    depth: u32,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<&'a str> {
        self.tokens.get(self.position).copied()
    }

    fn next(&mut self) -> Option<&'a str> {
        let token = self.peek()?;
        self.position += 1;
        Some(token)
    }

    fn take_any(&mut self, words: &[&str]) -> bool {
        let found = self.peek().is_some_and(|token| words.contains(&token));
        self.position += usize::from(found);
        found
    }

    /// An error about the next word, or about the end.
    fn invalid(&self, reason: impl Into<String>) -> Error {
        let value = self.peek().unwrap_or("(end of the filter)");
        Error::invalid("filter", value, reason)
    }

    /// An error about the word just taken.
    fn invalid_last(&self, reason: impl Into<String>) -> Error {
        let value = self.tokens[self.position - 1];
        Error::invalid("filter", value, reason)
    }

    /// As in ss: what several `state` at the start name is united.
    /// Where an operator joins them to something else, they are conditions like others.
    fn states(&mut self) -> Result<Expression> {
        let start = self.position;
        let mut states: Option<States> = None;
        while let Some(keyword @ ("state" | "exclude")) = self.peek() {
            self.position += 1;
            if self.peek().is_some_and(|token| operator(token).is_some()) {
                self.position = start;
                return Ok(Expression::Everything);
            }
            let named = self.named_states()?;
            states = Some(if keyword == "state" {
                states.unwrap_or_default().with(named)
            } else {
                states.unwrap_or(States::ALL).without(named)
            });
        }
        if self.peek().is_some_and(|token| OR.contains(&token)) {
            self.position = start;
            return Ok(Expression::Everything);
        }
        Ok(states.map_or(Expression::Everything, |states| {
            Expression::Is(Condition::State(states))
        }))
    }

    fn expression(&mut self) -> Result<Expression> {
        let mut left = self.term()?;
        while self.take_any(&OR) {
            left = Expression::Or(left.into(), self.term()?.into());
        }
        Ok(left)
    }

    fn term(&mut self) -> Result<Expression> {
        let mut left = self.factor()?;
        loop {
            let is_joined = self.take_any(&AND);
            match self.peek() {
                None | Some(")") if !is_joined => return Ok(left),
                Some(token) if !is_joined && OR.contains(&token) => return Ok(left),
                _ => left = left.and(self.factor()?),
            }
        }
    }

    fn factor(&mut self) -> Result<Expression> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.invalid("nested too deeply"));
        }
        let factor = if self.take_any(&NOT) {
            Expression::Not(self.factor()?.into())
        } else if self.take_any(&["("]) {
            let inner = self.expression()?;
            if !self.take_any(&[")"]) {
                return Err(self.invalid("a ) is missing"));
            }
            inner
        } else {
            self.condition()?
        };
        self.depth -= 1;
        Ok(factor)
    }

    fn condition(&mut self) -> Result<Expression> {
        const WORDS: &str =
            "local, remote, lport, rport, src, dst, sport, dport, state, proto, binding or dir";
        let Some(word) = self.peek() else {
            return Err(self.invalid(format!("expected one of {WORDS}")));
        };
        let of_side = |side| {
            move |(operator, value): Compared<'_>| -> Result<_, String> {
                equality_only(operator)?;
                Ok(Condition::Endpoint(side, Endpoint::parse(value)?))
            }
        };
        let of_port = |side| {
            move |(operator, value): Compared<'_>| -> Result<_, String> {
                let value = value.strip_prefix("*:").unwrap_or(value);
                let ports = Ports::from_str(value.strip_prefix(':').unwrap_or(value))?;
                if operator != Operator::Equal && ports.width() != 0 {
                    return Err("a range can only be equal or not".into());
                }
                Ok(Condition::Port(side, operator, ports))
            }
        };
        self.position += 1;
        match word {
            "local" | "src" => self.compare(of_side(Side::Local)),
            "remote" | "dst" => self.compare(of_side(Side::Remote)),
            "lport" | "sport" => self.compare(of_port(Side::Local)),
            "rport" | "dport" => self.compare(of_port(Side::Remote)),
            "state" | "exclude" => {
                let is_equal = self.operator().is_none_or(|(_, is_equal)| is_equal);
                let states = Expression::Is(Condition::State(self.named_states()?));
                Ok(if is_equal == (word == "state") {
                    states
                } else {
                    Expression::Not(states.into())
                })
            }
            "proto" => self.compare(|(operator, value)| {
                equality_only(operator)?;
                let protocol = Protocol::ALL
                    .into_iter()
                    .find(|protocol| protocol.name().eq_ignore_ascii_case(value));
                Ok(Condition::Protocol(protocol.ok_or("not tcp or udp")?))
            }),
            "binding" => self.compare(|(operator, value)| {
                equality_only(operator)?;
                Ok(Condition::Binding(value.into()))
            }),
            "dir" => self.compare(|(operator, value)| {
                equality_only(operator)?;
                let direction = [Direction::In, Direction::Out]
                    .into_iter()
                    .find(|direction| direction.name().eq_ignore_ascii_case(value));
                Ok(Condition::Direction(direction.ok_or("not in or out")?))
            }),
            _ => Err(self.invalid_last(format!("expected one of {WORDS}"))),
        }
    }

    /// Reads an operator and a value, and makes a condition of them.
    fn compare(
        &mut self,
        condition: impl FnOnce(Compared<'a>) -> Result<Condition, String>,
    ) -> Result<Expression> {
        let (operator, is_equal) = self.operator().unwrap_or((Operator::Equal, true));
        let Some(value) = self.next() else {
            return Err(self.invalid("a value is missing"));
        };
        let condition = condition((operator, value)).map_err(|why| self.invalid_last(why))?;
        let expression = Expression::Is(condition);
        Ok(if is_equal {
            expression
        } else {
            Expression::Not(expression.into())
        })
    }

    fn operator(&mut self) -> Option<(Operator, bool)> {
        let operator = operator(self.peek()?)?;
        self.position += 1;
        Some(operator)
    }

    fn named_states(&mut self) -> Result<States> {
        let Some(names) = self.next() else {
            return Err(self.invalid("the name of a state is missing"));
        };
        names
            .split(',')
            .try_fold(States::default(), |states, name| {
                let named = States::parse(name).map_err(|why| self.invalid_last(why))?;
                Ok(states.with(named))
            })
    }
}

/// How to compare, and with what.
type Compared<'a> = (Operator, &'a str);

/// The operator, and whether it asks for the comparison or for its opposite.
fn operator(token: &str) -> Option<(Operator, bool)> {
    Some(match token {
        "=" | "==" | "eq" => (Operator::Equal, true),
        "!=" | "ne" | "neq" => (Operator::Equal, false),
        "<" | "lt" => (Operator::Less, true),
        "<=" | "le" | "leq" => (Operator::LessOrEqual, true),
        ">" | "gt" => (Operator::Greater, true),
        ">=" | "ge" | "geq" => (Operator::GreaterOrEqual, true),
        _ => return None,
    })
}

fn equality_only(operator: Operator) -> Result<(), String> {
    if operator == Operator::Equal {
        Ok(())
    } else {
        Err("only ports can be compared by size".into())
    }
}
