//! Which columns there is room for, and how much each gets.

use super::columns::look;
use crate::top::{Column, View};

/// Between two columns.
pub(super) const GAP: u16 = 1;

/// A column and how many columns of the screen it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) column: Column,
    pub(super) width: u16,
}

/// Chooses among the columns of a view those that fit `width`: first the one that rows are ordered by,
/// then by priority. What is left goes to those whose contents, of so many columns at most, need it.
pub(super) fn lay_out(
    view: View,
    sorted: Column,
    width: u16,
    contents: impl Fn(Column) -> u16,
) -> Vec<Placed> {
    let columns = view.columns();
    let mut ranked: Vec<Column> = columns.to_vec();
    ranked.sort_by_key(|&column| (column != sorted, look(view, column).priority));
    let mut chosen: Vec<Placed> = Vec::new();
    let mut left = width + GAP;
    for column in ranked {
        let least = look(view, column).least;
        if least + GAP <= left {
            left -= least + GAP;
            chosen.push(Placed {
                column,
                width: least,
            });
        } else if chosen.is_empty() {
            // Better a part of it than nothing.
            chosen.push(Placed { column, width });
            return chosen;
        }
    }
    for placed in &mut chosen {
        let most = look(view, placed.column).most;
        let wanted = contents(placed.column).min(most);
        let more = wanted.saturating_sub(placed.width).min(left);
        placed.width += more;
        left -= more;
    }
    chosen.sort_by_key(|placed| columns.iter().position(|&column| column == placed.column));
    chosen
}

/// A text in exactly so many columns; where it is longer, its end is cut off and shown to be.
pub(super) fn fit(text: &str, width: u16, is_right: bool) -> String {
    let width = usize::from(width);
    let length = text.chars().count();
    if length > width {
        let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
        if width > 0 {
            cut.push('…');
        }
        return cut;
    }
    if is_right {
        format!("{text:>width$}")
    } else {
        format!("{text:<width$}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(view: View, sorted: Column, width: u16) -> Vec<Column> {
        let placed = lay_out(view, sorted, width, |_| 0);
        let taken: u16 = placed.iter().map(|placed| placed.width + GAP).sum();
        assert!(taken <= width + GAP, "{placed:?}");
        placed.into_iter().map(|placed| placed.column).collect()
    }

    #[test]
    fn eighty_columns_hold_what_matters_most() {
        use Column::*;
        assert_eq!(
            columns(View::Connections, PacketRate, 80),
            [
                Local, Remote, State, Binding, PacketRate, RxRate, TxRate, Age
            ]
        );
        assert_eq!(
            columns(View::Bindings, PacketRate, 80),
            View::Bindings.columns()
        );
        assert_eq!(
            columns(View::Counters, PacketRate, 80),
            View::Counters.columns()
        );
    }

    #[test]
    fn wide_screens_hold_everything_and_narrow_ones_something() {
        use Column::*;
        for view in View::ALL {
            assert_eq!(columns(view, PacketRate, 200), view.columns());
        }
        assert_eq!(
            columns(View::Connections, PacketRate, 40),
            [Local, Remote, PacketRate]
        );
        for view in View::ALL {
            for width in 0..200 {
                assert!(!columns(view, PacketRate, width).is_empty());
            }
        }
    }

    #[test]
    fn the_column_that_rows_are_ordered_by_is_always_there() {
        for view in View::ALL {
            for &column in view.columns() {
                for width in [10, 40, 80] {
                    assert!(columns(view, column, width).contains(&column));
                }
            }
        }
    }

    #[test]
    fn what_is_left_goes_to_those_who_need_it() {
        let placed = lay_out(View::Connections, Column::PacketRate, 200, |column| {
            if column == Column::Remote { 40 } else { 0 }
        });
        let remote = placed.iter().find(|placed| placed.column == Column::Remote);
        assert_eq!(remote.map(|placed| placed.width), Some(40));
    }

    #[test]
    fn texts_fill_their_columns() {
        assert_eq!(fit("ab", 4, false), "ab  ");
        assert_eq!(fit("ab", 4, true), "  ab");
        assert_eq!(fit("abcdef", 4, false), "abc…");
        assert_eq!(fit("abcdef", 0, false), "");
    }
}
