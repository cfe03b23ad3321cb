//! The views, their columns, and how rows are ordered by one.

/// What is listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum View {
    /// Connections.
    #[default]
    Connections,
    /// Bindings.
    Bindings,
    /// Counters by interface, verdict and reason.
    Counters,
}

impl View {
    /// All of them, in the order of their keys.
    pub const ALL: [Self; 3] = [Self::Connections, Self::Bindings, Self::Counters];

    /// The name that users read.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Bindings => "bindings",
            Self::Counters => "counters",
        }
    }

    /// The view so many places further on.
    #[must_use]
    pub const fn step(self, places: usize) -> Self {
        Self::ALL[(self as usize + places) % Self::ALL.len()]
    }

    /// Its columns, in the order in which they are shown.
    #[must_use]
    pub const fn columns(self) -> &'static [Column] {
        match self {
            Self::Connections => &[
                Column::Protocol,
                Column::Direction,
                Column::Local,
                Column::Remote,
                Column::State,
                Column::Binding,
                Column::Target,
                Column::PacketRate,
                Column::RxRate,
                Column::TxRate,
                Column::Packets,
                Column::RxBytes,
                Column::TxBytes,
                Column::Age,
                Column::Idle,
                Column::Expires,
            ],
            Self::Bindings => &[
                Column::Binding,
                Column::Protocol,
                Column::Local,
                Column::Device,
                Column::Target,
                Column::PacketRate,
                Column::ByteRate,
                Column::Connections,
                Column::Packets,
                Column::Bytes,
            ],
            Self::Counters => &[
                Column::Interface,
                Column::Verdict,
                Column::Reason,
                Column::PacketRate,
                Column::ByteRate,
                Column::Packets,
                Column::Bytes,
            ],
        }
    }
}

macro_rules! columns {
    ($($variant:ident $word:literal $is_number:literal $doc:literal)*) => {
        /// Something that rows are ordered by.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Column {
            $(#[doc = $doc] $variant,)*
        }

        impl Column {
            /// The word that users write.
            #[must_use]
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word,)* }
            }

            /// Whether it is an amount, so that the largest come first unless asked otherwise.
            #[must_use]
            pub const fn is_number(self) -> bool {
                match self { $(Self::$variant => $is_number,)* }
            }
        }
    };
}

columns! {
    Protocol "proto" false "TCP or UDP."
    Direction "dir" false "Which side opened the connection."
    Local "local" false "This host's side, or the pattern of a binding."
    Remote "remote" false "The other side."
    State "state" false "The state."
    Binding "binding" false "The name of the binding."
    Target "target" false "Where packets go."
    PacketRate "pps" true "Packets a second, in both directions."
    RxRate "in" true "Bytes a second that arrive."
    TxRate "out" true "Bytes a second that leave."
    ByteRate "bps" true "Bytes a second."
    Packets "packets" true "Packets, in both directions."
    RxBytes "rx" true "Bytes that arrived."
    TxBytes "tx" true "Bytes that left."
    Bytes "bytes" true "Bytes."
    Age "age" true "Time since the row was made."
    Idle "idle" true "Time since a packet."
    Expires "expires" true "Time until the row expires."
    Device "dev" false "The device that a binding is bound to."
    Connections "connections" true "Rows that a binding owns."
    Interface "iface" false "The interface."
    Verdict "verdict" false "What happened to the packets."
    Reason "reason" false "Why."
}

impl Column {
    /// The column of a view that a word names.
    #[must_use]
    pub fn of(view: View, word: &str) -> Option<Self> {
        let mut columns = view.columns().iter().copied();
        columns.find(|column| column.word() == word)
    }
}

/// The order of a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: Column,
    /// Whether it is the other way around than usual.
    pub is_reversed: bool,
}

impl Sort {
    /// The order that a view begins with.
    #[must_use]
    pub const fn initial(_view: View) -> Self {
        Self {
            column: Column::PacketRate,
            is_reversed: false,
        }
    }

    /// Whether the largest come first.
    #[must_use]
    pub const fn is_descending(self) -> bool {
        self.column.is_number() != self.is_reversed
    }

    /// The same rank, such that what comes first is less.
    #[must_use]
    pub const fn place(self, rank: Rank) -> Rank {
        if self.is_descending() {
            Rank(!rank.0, !rank.1)
        } else {
            rank
        }
    }
}

/// Where a row stands among others: numbers that compare as what they were made from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank(u128, u128);

impl Rank {
    /// A whole number.
    #[must_use]
    pub const fn number(number: u64) -> Self {
        Self(number as u128, 0)
    }

    /// A rate, which is not negative; an unknown one comes before all others.
    #[must_use]
    pub fn rate(rate: Option<f64>) -> Self {
        // Bits of numbers that are not negative compare as the numbers do.
        rate.map_or_else(Self::default, |rate| {
            Self(u128::from(rate.max(0.0).to_bits()) + 1, 0)
        })
    }

    /// A text, of which the first 32 bytes count.
    #[must_use]
    pub fn text(text: &[u8]) -> Self {
        let mut bytes = [0; 32];
        let length = text.len().min(bytes.len());
        bytes[..length].copy_from_slice(&text[..length]);
        let half = |from| {
            let mut half = [0; 16];
            half.copy_from_slice(&bytes[from..from + 16]);
            u128::from_be_bytes(half)
        };
        Self(half(0), half(16))
    }

    /// An address with a port.
    #[must_use]
    pub fn endpoint(address: u128, port: u16) -> Self {
        Self(address, port.into())
    }
}

/// Something that is ordered by columns.
pub trait Ranked {
    /// Where it stands by a column; columns that it does not have leave the order as it is.
    fn rank(&self, column: Column) -> Rank;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_compare_as_what_they_were_made_from() {
        assert!(Rank::number(9) < Rank::number(10));
        assert!(Rank::rate(None) < Rank::rate(Some(0.0)));
        assert!(Rank::rate(Some(0.0)) < Rank::rate(Some(0.25)));
        assert!(Rank::rate(Some(9.5)) < Rank::rate(Some(1e12)));
        assert!(Rank::text(b"dns") < Rank::text(b"web"));
        assert!(Rank::text(b"web") < Rank::text(b"web-2"));
        assert!(Rank::text(b"0123456789abcdefA") < Rank::text(b"0123456789abcdefB"));
        assert!(Rank::endpoint(1, 90) < Rank::endpoint(2, 80));
        assert!(Rank::endpoint(1, 80) < Rank::endpoint(1, 90));
    }

    #[test]
    fn the_largest_numbers_and_the_first_texts_come_first() {
        let sort = |column, is_reversed| Sort {
            column,
            is_reversed,
        };
        let (low, high) = (Rank::number(1), Rank::number(2));
        for (sort, is_descending) in [
            (sort(Column::Packets, false), true),
            (sort(Column::Packets, true), false),
            (sort(Column::Local, false), false),
            (sort(Column::Local, true), true),
        ] {
            assert_eq!(sort.is_descending(), is_descending);
            assert_eq!(sort.place(high) < sort.place(low), is_descending);
        }
    }

    #[test]
    fn words_name_columns_of_their_view_only() {
        for view in View::ALL {
            for column in view.columns() {
                assert_eq!(Column::of(view, column.word()), Some(*column));
            }
            assert!(view.columns().contains(&Sort::initial(view).column));
        }
        assert_eq!(Column::of(View::Counters, "state"), None);
    }

    #[test]
    fn views_follow_each_other_around() {
        assert_eq!(View::Connections.step(1), View::Bindings);
        assert_eq!(View::Counters.step(1), View::Connections);
        assert_eq!(View::Connections.step(2), View::Counters);
    }
}
