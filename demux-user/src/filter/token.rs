//! Words of a filter.

/// Splits words at blanks, parentheses and operators, so that `dport=:80` and `dport = :80` are the same.
pub(super) fn split<'a>(words: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    words
        .flat_map(str::split_whitespace)
        .flat_map(pieces)
        .collect()
}

/// Longer ones come before those they begin with.
const OPERATORS: [&str; 14] = [
    "==", "!=", "<=", ">=", "&&", "||", "=", "<", ">", "!", "&", "|", "(", ")",
];

fn pieces(mut word: &str) -> Vec<&str> {
    let mut pieces = Vec::new();
    while !word.is_empty() {
        let operator = OPERATORS
            .into_iter()
            .find(|operator| word.starts_with(operator));
        let length = match operator {
            Some(operator) => operator.len(),
            None => word
                .find(['=', '!', '<', '>', '&', '|', '(', ')'])
                .unwrap_or(word.len()),
        };
        let (piece, rest) = word.split_at(length);
        pieces.push(piece);
        word = rest;
    }
    pieces
}

#[cfg(test)]
mod tests {
    #[test]
    fn operators_need_no_blanks() {
        let split = |text| super::split([text].into_iter());
        assert_eq!(split("dport=:80"), ["dport", "=", ":80"]);
        assert_eq!(
            split("(sport>=:1024||!dst 10.0.0.0/8)"),
            [
                "(",
                "sport",
                ">=",
                ":1024",
                "||",
                "!",
                "dst",
                "10.0.0.0/8",
                ")"
            ]
        );
        assert_eq!(
            split("src [2001:db8::/32]:80"),
            ["src", "[2001:db8::/32]:80"]
        );
        assert_eq!(split("  "), [""; 0]);
    }
}
