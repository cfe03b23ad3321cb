//! Sets of states, by the names of RFC 9293 and by those of ss.

use demux_common::connection::State;

/// A set of states.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct States(u16);

/// Those of UDP, which are not states of TCP.
const UDP: [State; 3] = [State::Unreplied, State::Replied, State::Assured];

/// What ss calls bucket: those the kernel keeps no full socket for.
const BUCKET: [State; 2] = [State::SynReceived, State::TimeWait];

impl States {
    /// Every state.
    pub const ALL: Self = Self((1 << State::ALL.len()) - 1);

    /// The states that a word stands for: the name of one, or of a group as in ss.
    ///
    /// # Errors
    ///
    /// Why the word stands for none.
    pub fn parse(word: &str) -> Result<Self, String> {
        let word = word.to_ascii_lowercase();
        Ok(match word.as_str() {
            "all" | "connected" => Self::ALL,
            "synchronized" | "synchronised" => {
                Self::ALL.without(Self::of(&[State::SynSent, State::Listen]))
            }
            "bucket" => Self::of(&BUCKET),
            "big" => Self::ALL.without(Self::of(&BUCKET)),
            "tcp" => Self::ALL.without(Self::of(&UDP)),
            "udp" => Self::of(&UDP),
            "syn-recv" => Self::of(&[State::SynReceived]),
            "estab" => Self::of(&[State::Established]),
            "listening" | "closed" | "unconnected" => {
                return Err(format!(
                    "the connection table has no rows in state {word:?}; see demux bindings"
                ));
            }
            name => {
                let state = State::ALL
                    .iter()
                    .find(|state| state.name().eq_ignore_ascii_case(name));
                Self::of(&[*state.ok_or_else(|| {
                    let names: Vec<_> = State::ALL
                        .iter()
                        .map(|state| state.name().to_ascii_lowercase())
                        .collect();
                    format!(
                        "not a state; the states are {}, all, connected, synchronized, bucket and big",
                        names.join(", ")
                    )
                })?])
            }
        })
    }

    /// Whether the set has this state.
    #[must_use]
    pub fn contains(self, state: State) -> bool {
        self.0 & (1 << state as u8) != 0
    }

    /// The states of either set.
    #[must_use]
    pub fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The states that the other set does not have.
    #[must_use]
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn of(states: &[State]) -> Self {
        Self(states.iter().fold(0, |set, &state| set | 1 << state as u8))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(word: &str) -> Vec<&'static str> {
        let states = States::parse(word).unwrap();
        let in_set = |state: &&State| states.contains(**state);
        State::ALL.iter().filter(in_set).map(|s| s.name()).collect()
    }

    #[test]
    fn a_state_has_its_name_in_any_case() {
        for state in State::ALL {
            assert_eq!(names(state.name()), [state.name()]);
            assert_eq!(names(&state.name().to_lowercase()), [state.name()]);
        }
    }

    #[test]
    fn the_words_of_ss_are_known() {
        assert_eq!(names("syn-recv"), ["SYN-RECEIVED"]);
        assert_eq!(names("all").len(), State::ALL.len());
        assert_eq!(names("bucket"), ["SYN-RECEIVED", "TIME-WAIT"]);
        assert_eq!(names("big").len(), State::ALL.len() - 2);
        assert!(!names("synchronized").contains(&"SYN-SENT"));
        assert_eq!(names("udp"), ["UNREPLIED", "REPLIED", "ASSURED"]);
    }

    #[test]
    fn what_is_no_state_is_refused() {
        assert!(States::parse("listening").unwrap_err().contains("no rows"));
        assert!(States::parse("open").unwrap_err().contains("established"));
    }
}
